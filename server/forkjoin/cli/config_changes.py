"""Changes of shared configuration and hooks since the person last accepted them."""

import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import anyio
import typer

from forkjoin.cli.safe_output import ask_yes_no, print_text
from forkjoin.core.error import CallerError, NoRepositoryError
from forkjoin.core.paths import Home
from forkjoin.git import config_snapshot
from forkjoin.git.config_comparison import ConfigChange, compare_snapshots
from forkjoin.git.config_snapshot import Snapshot
from forkjoin.git.repository import read_checkout


@dataclass(frozen=True, slots=True)
class Changed:
    """A repository's changes, with the snapshot that they lead to. `accepted` is `None` before its first use."""

    common_dir: str
    file: Path  #: where `accepted` is kept
    accepted: Snapshot | None
    now: Snapshot
    changes: list[ConfigChange]
    damage: str | None  #: why it is not known what was accepted

    @property
    def since(self) -> str:
        """When the state was accepted that this is compared with."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.file.stat().st_mtime))

    def lines(self, without: Container[str] = ()) -> list[str]:
        """Return a line for each change, except changes of these configuration keys."""
        damage = [self.damage] if self.damage else []
        return damage + [str(change) for change in self.changes if not change.key or change.key not in without]

    def accept(self) -> None:
        """Record what was shown as the person's own."""
        config_snapshot.accept(self.file, self.now)


async def find_changed(home: Home, common_dir: str) -> Changed:
    """Compare what a repository shares with what was accepted."""
    file = config_snapshot.accepted_file(home, common_dir)
    accepted, now = config_snapshot.read_accepted(file), config_snapshot.take_snapshot(common_dir)
    changes = [] if accepted is None else await compare_snapshots(accepted, now)
    return Changed(common_dir, file, accepted, now, changes, config_snapshot.find_damage(file))


async def find_changed_here(home: Home) -> Changed | None:
    """Compare the repository of the working directory, or return `None` where there is none."""
    try:
        checkout = await read_checkout(Path.cwd())
    except NoRepositoryError:
        return None
    return await find_changed(home, checkout.common_dir)


def put_all_back(home: Home, *, show: bool, yes: bool) -> None:
    """Show the changes, ask the person, and restore the accepted files."""
    changed = anyio.run(find_changed_here, home)
    if changed is None:
        raise CallerError("There is no repository here.")
    if changed.damage:
        raise CallerError(changed.damage)
    for line in changed.lines():
        print_text(f"CHANGED  {line}")
    names = list(dict.fromkeys(change.file for change in changed.changes))
    if not names or changed.accepted is None:
        print_text("Nothing here has changed.")
        return
    if show:
        raise typer.Exit(1)
    if not yes and not ask_yes_no(f"Put these files back as they were on {changed.since}?"):
        raise CallerError("nothing was put back")
    kept = changed.file.parent / f"replaced-{time.time_ns()}"
    config_snapshot.write_copies(kept, changed.now, names)
    left = config_snapshot.restore_files(changed.common_dir, changed.accepted, names)
    print_text(f"Put back. What was there is kept in {kept}")
    if left:
        raise CallerError(
            f"these files could not be put back. Restore them by hand in {changed.common_dir}: {', '.join(left)}"
        )


def find_fault(home: Home) -> tuple[str, str] | None:
    """Return what a person should know of this repository's shared configuration, and do about it, if anything."""
    changed = anyio.run(find_changed_here, home)
    if changed is None or not (lines := changed.lines()):
        return None
    if changed.damage:
        return changed.damage, "forkjoin trust"
    found = f"changed since {changed.since}: {'; '.join(lines)}"
    return found, "forkjoin trust, or to put it back forkjoin trust --restore"
