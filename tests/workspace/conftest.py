"""The executor in which commands of a workspace run."""

from support.attempt_fixtures import folder, local, place

__all__ = ["folder", "local", "place"]  # pytest finds fixtures by name
