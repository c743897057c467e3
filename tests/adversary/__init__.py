"""The adversary test: agents act in hostile or unusual ways in unusual repositories, then invariants are checked.

Run `python -m adversary --histories N --seed S` in `tests/`. A history follows a `Plan`: unusual states of a repository
and its user's checkout (`states.py`), agents with hostile or unusual actions (`actions/`), and the lead's operations
(`play.py`). A plan can be written as a line of text. A failure prints this line, and `--plan` plays it again.
"""
