"""The adapters, by the `kind` of an agent program in config.toml."""

from forkjoin.adapters import claude, command
from forkjoin.adapters.contract import Adapter

ADAPTERS: dict[str, Adapter] = {
    "claude": claude,
    "command": command,
}
