"""The version, in a module that the relay can import without anything else."""

__version__ = "0.1.0"

#: The version of the protocol between relay and daemon, which both must have: the hello and the lines after it.
PROTOCOL = 1
