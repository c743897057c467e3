"""Every adapter, by the `kind` that settings name."""

from forkjoin.adapters import claude, command
from forkjoin.adapters.contract import Adapter

ADAPTERS: dict[str, Adapter] = {
    "claude": claude,
    "command": command,
}
