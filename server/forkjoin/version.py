"""The version, where the relay can read it without importing anything else."""

__version__ = "0.1.0"

#: What relay and daemon must agree on: the form of the hello and of what follows it.
PROTOCOL = 1
