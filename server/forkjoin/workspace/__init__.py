"""workspace: makes worktrees of agents and merges ready, runs commands in them, and finds the work in them.

It also holds the repository configuration and the search for tampered git configuration.
Modules here may import `services`, `scheduling`, `store`, `git`, `process`, `adapters` and `core`.
"""
