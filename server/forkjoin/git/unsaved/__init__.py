"""Search for work that exists only in an agent's worktree, so that it isn't lost when the worktree is removed.

Modules here may import the modules of `git` and of `git.worktrees`, but not `git.merging`.
"""
