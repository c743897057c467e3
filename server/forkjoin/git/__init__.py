"""git: the only package that runs the `git` program.

Modules at the root run git and answer questions about one repository: refs, commits, changed paths, configuration.
The packages below may import them: `worktrees` (checkouts and agents' worktrees), `unsaved` (work that only a worktree
has) and `merging` (merging branches and moving a target). Outside of this package, they import only `core`.
"""
