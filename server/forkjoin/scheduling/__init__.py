"""Decisions about agents, as pure functions: who starts, who pauses, who is the best candidate.

Modules here use no clock and no I/O. They import `forkjoin.core` and each other only.
"""
