"""workspace: worktrees made ready for agents and merges alike, and the work in them.

It holds the repository configuration, setup and teardown, shell commands, and the search for tampered configuration.
Modules here may import `services`, `scheduling`, `store`, `git`, `process`, `adapters` and `core`.
"""
