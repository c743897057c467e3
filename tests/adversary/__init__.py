"""The adversary: random hostile and odd actions, in odd repositories, around a lead at work; then the invariants.

`python -m adversary --histories N --seed S`, in `tests/`. A history is one `Plan`: odd states of a repository and of
its user's checkout (`states.py`), agents that carry out hostile or odd actions (`actions/`), and what the lead does
around them (`play.py`). A plan is a line of text, so that a fault is told, and played again, by that line.
"""
