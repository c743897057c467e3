"""process: starts programs of agents as attempts under shims, limits and measures them, and ends them.

The modules import `core` and each other. The shim and the modules that it imports use the standard library alone. This
file contains no code, since each shim would load it.
"""
