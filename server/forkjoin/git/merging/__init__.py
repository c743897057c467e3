"""Merging in the object store, and moving a target branch to the result, together with its checkout.

May import the git package and core.
"""
