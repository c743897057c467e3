"""The adversary test: agents act in hostile or unusual ways in unusual repositories, then invariants are checked.

Run `python -m adversary --histories N --seed S` in `tests/`. A history follows a `Plan`: a kind of repository
(`repository_kinds.py`), unusual states of it and of its user's checkout (`states.py`), agents with hostile or unusual
actions (`actions/`), and the lead's operations (`play.py`). A plan can be written as a line of text. A failure prints
this line, and `--plan` plays it again.
"""
