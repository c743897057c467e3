"""The executor that runs commands of a workspace."""

from support.attempt_fixtures import folder, local, place

__all__ = ["folder", "local", "place"]  # pytest finds fixtures by name
