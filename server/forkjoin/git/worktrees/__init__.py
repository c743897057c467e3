"""Worktrees: made, shared with the checkout, locked, committed from, repaired and removed; and scratch worktrees.

May import the git package and core.
"""
