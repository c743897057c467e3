"""Merging agents' branches: the queue of merge jobs, the merge train, resolvers for conflicts, undo and recovery.

May import workspace, scheduling, store, git, process and core; never agents, transport or tools.
"""
