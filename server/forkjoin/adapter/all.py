"""Every adapter, by the `kind` that settings name."""

from forkjoin.adapter import claude, command
from forkjoin.adapter.contract import Adapter

ADAPTERS: dict[str, Adapter] = {
    "claude": claude,
    "command": command,
}
