"""agents: the operations on agents, one module each, from spawning to removal.

`run_agent` takes an agent through its states, and `apply_schedule` records which agents start. Modules here may import
`workspace`, `services`, `scheduling`, `store`, `git`, `process`, `adapters` and `core`.
"""
