"""Changes of the git configuration and hooks that worktrees share, since the person last accepted them."""

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
class SharedConfigChanges:
    """The changes of a repository's shared configuration and hooks since a person last accepted them.

    Attributes:
        common_dir: The repository's common git folder.
        file: The file of the accepted snapshot.
        accepted: The accepted snapshot. `None` if it can't be read, or before the repository's first use.
        now: The current snapshot.
        damage: Why the accepted snapshot can't be read, or `None` if it can, or doesn't exist.
    """

    common_dir: str
    file: Path
    accepted: Snapshot | None
    now: Snapshot
    changes: list[ConfigChange]
    damage: str | None

    @property
    def since(self) -> str:
        """The local time at which the accepted snapshot was taken, for messages."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.file.stat().st_mtime))

    def lines(self, without: Container[str] = ()) -> list[str]:
        """Return a line for the damage, if any, and one for each change.

        Args:
            without: Configuration keys whose changes are left out.
        """
        damage = [self.damage] if self.damage else []
        return damage + [str(change) for change in self.changes if not change.key or change.key not in without]

    def accept(self) -> None:
        """Record the current snapshot as accepted."""
        config_snapshot.accept(self.file, self.now)


async def find_changed(home: Home, common_dir: str) -> SharedConfigChanges:
    """Compare a repository's shared configuration and hooks with the accepted ones."""
    file = config_snapshot.accepted_file(home, common_dir)
    accepted, now = config_snapshot.read_accepted(file), config_snapshot.take_config_snapshot(common_dir)
    changes = [] if accepted is None else await compare_snapshots(accepted, now)
    return SharedConfigChanges(common_dir, file, accepted, now, changes, config_snapshot.find_snapshot_damage(file))


async def find_changed_here(home: Home) -> SharedConfigChanges | None:
    """Do `find_changed` for the repository of the working directory.

    Return `None` outside of repositories.
    """
    try:
        checkout = await read_checkout(Path.cwd())
    except NoRepositoryError:
        return None
    return await find_changed(home, checkout.common_dir)


def restore_all(home: Home, *, show: bool, yes: bool) -> None:
    """Show the changes, ask the person, and restore the accepted files.

    The replaced files are kept in the home.

    Args:
        show: Only show the changes, and exit with code 1 if there are any.
        yes: Restore without asking.

    Raises:
        CallerError: The accepted files can't be read, the person refused, or not all files could be restored.
    """
    changed = anyio.run(find_changed_here, home)
    if changed is None:
        raise CallerError("this folder is in no repository. Run the command in your checkout")
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
    if not yes and not ask_yes_no(f"Restore these files as of {changed.since}?"):
        raise CallerError("nothing was restored. Run forkjoin trust --restore again to decide")
    kept = changed.file.parent / f"replaced-{time.time_ns()}"
    config_snapshot.write_copies(kept, changed.now, names)
    left = config_snapshot.restore_files(changed.common_dir, changed.accepted, names)
    print_text(f"Restored. The replaced files are kept in {kept}")
    if left:
        raise CallerError(
            f"these files could not be restored. Restore them by hand in {changed.common_dir}: {', '.join(left)}"
        )


def find_fault(home: Home) -> tuple[str, str] | None:
    """Return a line about changes in the current repository, and the remedy.

    Return `None` outside of repositories, and if nothing changed.
    """
    changed = anyio.run(find_changed_here, home)
    if changed is None or not (lines := changed.lines()):
        return None
    if changed.damage:
        return changed.damage, "forkjoin trust"
    found = f"changed since {changed.since}: {'; '.join(lines)}"
    return found, "forkjoin trust to accept it, or forkjoin trust --restore"
