"""The crash test: random operations of several leads, while all that can be killed is; then what must hold is checked.

`python -m crash --rounds N --seed S`, in `tests/`. A `World` is a home, two repositories, leads and a person; a round
is some 25 operations at random moments, with kills among them, then rest, then the invariants (`check.py`).
"""
