"""All adapters, by the `kind` that the settings give to an agent program."""

from forkjoin.adapters import claude, command
from forkjoin.adapters.contract import Adapter

ADAPTERS: dict[str, Adapter] = {
    "claude": claude,
    "command": command,
}
