"""The crash test: several leads call tools at random while the daemon, relays, shims and programs are killed at random.

Run `python -m crash --rounds N --seed S` in `tests/`. A `World` is a home, leads, and two repositories with a person in
each. A round draws about 25 operations, kills among them. The round then waits until the world is at rest, and checks
the invariants (`check.py`).
"""
