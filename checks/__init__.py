"""Checks of this project's own, which `make` runs in addition to ruff, mypy, pyright and import-linter."""
