"""agents: the operations on agents, one module each, from spawning to removal.

`lifecycle` runs an agent through its states, and `apply_schedule` records who starts. Modules here may import
`workspace`, `services`, `scheduling`, `store`, `git`, `process`, `adapters` and `core`.
"""
