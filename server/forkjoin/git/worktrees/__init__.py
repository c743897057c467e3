"""Operations on worktrees: creation, sharing of files, locks, autocommits, repair and removal.

Modules here may import the modules of `git`, but neither `git.unsaved` nor `git.merging`.
"""
