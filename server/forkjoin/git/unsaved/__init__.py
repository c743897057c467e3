"""Work that only an agent's worktree has, which must not be lost when the worktree is removed.

Modules here may import the modules of `git` and of `git.worktrees`, but not `git.merging`.
"""
