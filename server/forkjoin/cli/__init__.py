"""The command line. Commands call the same tools as leads do, over the daemon's socket.

Modules may import everything below, but not the tools. Imports that most commands don't need are made in functions.
"""
