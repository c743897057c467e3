"""forkjoin trust: a person reviews what a repository wants executed, and allows exactly that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import anyio
import typer

from forkjoin.cli.config_changes import SharedConfigChanges, find_changed, restore_all
from forkjoin.cli.person_only import require_person
from forkjoin.cli.safe_output import ask_yes_no
from forkjoin.core.error import CallerError, NoRepositoryError
from forkjoin.core.paths import Home, find_home
from forkjoin.core.trust_records import Trust, Trusted
from forkjoin.git.git_config import list_entries_that_need_trust
from forkjoin.git.repository import Checkout, read_checkout
from forkjoin.git.unsafe_config import ConfigEntry
from forkjoin.workspace.repository_config import RepositoryConfig, has_lost_verify, read_repository_config


def trust(
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Only show it. Exit code 1 if something is not trusted.")
    ] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Withdraw all trust in this repository.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Restore changed configuration and hooks.")] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep using the forkjoin.toml trusted last, until you trust another."),
    ] = False,
) -> None:
    """Review and allow what forkjoin.toml and the git configuration execute.

    Also shows changes of the git configuration and hooks that all worktrees share, since you last accepted them.
    """
    require_person("trust anything")
    home = find_home()
    home.make()
    if restore:
        return restore_all(home, show=show, yes=yes)
    found = anyio.run(_find_wanted, home)
    records, common_dir = Trust(home.trust), found.checkout.common_dir
    if revoke:
        records.write(common_dir, Trusted())
        typer.echo("Nothing in this repository is trusted now.")
        return None
    known = records.read(common_dir) or Trusted()
    if keep:
        return _keep_using_last(records, common_dir, known)
    changed = anyio.run(find_changed, home, common_dir)
    fresh = _show(found, changed, known)
    if show or not fresh:
        raise typer.Exit(1 if fresh else 0)
    if not yes and not ask_yes_no("Allow all of this, exactly as shown?"):
        raise CallerError("nothing was trusted. Run forkjoin trust again to decide")
    changed.accept()
    records.write(common_dir, found.accepted(known))
    typer.echo("Trusted. Any change will not be executed until you trust it, too.")
    return None


def _keep_using_last(records: Trust, common_dir: str, known: Trusted) -> None:
    """Use the forkjoin.toml that was trusted last."""
    if known.last is None:
        raise CallerError("no forkjoin.toml was trusted here before. Review this one with: forkjoin trust")
    records.write(common_dir, replace(known, keep=True))
    typer.echo("The forkjoin.toml trusted last stays in use until you trust another.")


def _show(found: "_Found", changed: SharedConfigChanges, known: Trusted) -> list[str]:
    """Print what needs trust and what changed. Return what the person must decide on."""
    for text, trusted in found.list(known):
        typer.echo(f"{'trusted' if trusted else 'NEW    '}  {text}")
    for line in found.compare(known):
        typer.echo(line)
    lines = changed.lines(without={entry.key for entry in found.commands})
    for line in lines:
        typer.echo(_escape(f"CHANGED  {line}"))
    fresh = [*found.new(known), *lines]
    if not fresh:
        typer.echo("Nothing here needs your trust.")
    elif changed.changes:
        typer.echo(f"Changed since {changed.since}. To restore it instead: forkjoin trust --restore")
    return fresh


def find_untrusted(home: Home) -> Sequence[str] | None:
    """Return what in the current repository needs a person's trust.

    Returns `None` outside of repositories.

    Raises:
        ForkjoinError: forkjoin.toml or the git configuration can't be read.
    """
    try:
        found = anyio.run(_find_wanted, home)
    except NoRepositoryError:
        return None
    # Git configuration that exists when a project is first used counts as trusted.
    first = Trusted(frozenset(entry.digest for entry in found.commands))
    return found.new(Trust(home.trust).read(found.checkout.common_dir) or first)


@dataclass(frozen=True, slots=True)
class _Found:
    """A repository, and what it wants executed."""

    checkout: Checkout
    commands: Sequence[ConfigEntry]
    wanted: RepositoryConfig | None

    def list(self, known: Trusted) -> Iterator[tuple[str, bool]]:
        """Yield what the repository wants executed, and whether it is trusted.

        The texts are escaped for a terminal.
        """
        for entry in self.commands:
            yield _escape(f"git configuration: {entry.key} = {entry.value}"), entry.digest in known.commands
        if self.wanted:
            for line in self.wanted.settings.lines():
                yield _escape(f"{self.wanted.file}: {line}"), self.wanted.digest in known.files
        if self.checkout.top and has_lost_verify(self.wanted, known):
            yield _escape(f"{self.checkout.top}/forkjoin.toml: verify was removed"), False

    def compare(self, known: Trusted) -> Iterator[str]:
        """Yield the differences from the forkjoin.toml trusted last, if there is one."""
        now = self.wanted.content.decode() if self.wanted else ""
        if known.last not in (None, now):
            sides = ((known.last or "").splitlines(), now.splitlines())
            yield from map(_escape, unified_diff(*sides, "trusted last", "now", lineterm=""))

    def accepted(self, known: Trusted) -> Trusted:
        """Return the trust records to store once the person agrees.

        A missing forkjoin.toml can be trusted, too.
        """
        commands = frozenset(entry.digest for entry in self.commands)
        if self.wanted is None:
            return Trusted(commands)
        return Trusted(commands, known.files | {self.wanted.digest}, self.wanted.content.decode())

    def new(self, known: Trusted) -> Sequence[str]:
        return [text for text, trusted in self.list(known) if not trusted]


async def _find_wanted(home: Home) -> _Found:
    checkout = await read_checkout(Path.cwd())
    if checkout.top and Path(checkout.top).is_relative_to(home.worktrees.resolve()):
        raise CallerError("this is an agent's worktree. Run forkjoin trust in your own checkout")
    return _Found(
        checkout, await list_entries_that_need_trust(checkout.common_dir), read_repository_config(home, checkout)
    )


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
