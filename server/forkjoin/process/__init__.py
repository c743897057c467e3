"""Attempts: processes that run agents' programs under a shim, with limits, and everything that ends them.

The modules import `core` and each other. The shim and the modules that it imports use the standard library alone. This
file contains no code, since each running agent pays for the imports of its shim.
"""
