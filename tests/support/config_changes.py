"""Changes of shared git configuration and hooks since a snapshot."""

from forkjoin.git.config_comparison import compare_snapshots
from forkjoin.git.config_snapshot import Snapshot, from_json, take_config_snapshot, to_json


async def changed_since(before: Snapshot, common_dir: str) -> list[str]:
    """Return the changes since a snapshot, after storing the snapshot as JSON."""
    return [
        str(change) for change in await compare_snapshots(from_json(to_json(before)), take_config_snapshot(common_dir))
    ]
