"""The records: the only package with SQL.

`store.Store` is made of parts by subject, each a module of the same name. The modules import `core` only.
"""
