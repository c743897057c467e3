"""forkjoin trust: a person looks at what a repository wants executed, and says yes to exactly that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import anyio
import typer

from forkjoin.cli.config_changes import Changed, find_changed, put_all_back
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only show it. Exit code 1 if some is not trusted.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust nothing here any more.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Put changed configuration and hooks back.")] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep using the forkjoin.toml that you trusted last, until you trust another."),
    ] = False,
) -> None:
    """Look at what this repository's forkjoin.toml and git configuration want done, and allow exactly that.

    Shows also what changed in the git configuration and hooks that all worktrees share, since that was last accepted.
    """
    require_person("trust anything")
    home = find_home()
    home.make()
    if restore:
        return put_all_back(home, show=show, yes=yes)
    found = anyio.run(_find, home)
    records, common_dir = Trust(home.trust), found.checkout.common_dir
    if revoke:
        records.write(common_dir, Trusted())
        typer.echo("Nothing is trusted here any more.")
        return None
    known = records.read(common_dir) or Trusted()
    if keep:
        return _keep(records, common_dir, known)
    changed = anyio.run(find_changed, home, common_dir)
    fresh = _show(found, changed, known)
    if show or not fresh:
        raise typer.Exit(1 if fresh else 0)
    if not yes and not ask_yes_no("May all of this be done, as it stands here?"):
        raise CallerError("nothing was trusted")
    changed.accept()
    records.write(common_dir, found.accepted(known))
    typer.echo("Trusted. Whatever changes in it is not run until you say so again.")
    return None


def _keep(records: Trust, common_dir: str, known: Trusted) -> None:
    """Use the forkjoin.toml that was trusted last."""
    if known.last is None:
        raise CallerError("no forkjoin.toml was trusted here before. Look at this one with: forkjoin trust")
    records.write(common_dir, replace(known, keep=True))
    typer.echo("The forkjoin.toml that you trusted last stays in use until you trust another.")


def _show(found: "_Found", changed: Changed, known: Trusted) -> list[str]:
    """Print what needs trust and what changed. Return what awaits the person's yes."""
    for text, trusted in found.list(known):
        typer.echo(f"{'trusted' if trusted else 'NEW    '}  {text}")
    for line in found.compare(known):
        typer.echo(line)
    lines = changed.lines(without={entry.key for entry in found.commands})
    for line in lines:
        typer.echo(_plain(f"CHANGED  {line}"))
    fresh = [*found.new(known), *lines]
    if not fresh:
        typer.echo("Nothing here waits for your trust.")
    elif changed.changes:
        typer.echo(f"Changed since {changed.since}. To put it back instead: forkjoin trust --restore")
    return fresh


def untrusted(home: Home) -> Sequence[str] | None:
    """What in the repository here waits for a person's trust; none where there is no repository.

    Raises:
        ForkjoinError: What it wants can't be read.
    """
    try:
        found = anyio.run(_find, home)
    except NoRepositoryError:
        return None
    # What a project has when it is first used is the person's own.
    first = Trusted(frozenset(one.digest for one in found.commands))
    return found.new(Trust(home.trust).read(found.checkout.common_dir) or first)


@dataclass(frozen=True, slots=True)
class _Found:
    """A repository, and what in it wants to be executed."""

    checkout: Checkout
    commands: Sequence[ConfigEntry]
    wanted: RepositoryConfig | None

    def list(self, known: Trusted) -> Iterator[tuple[str, bool]]:
        """What wants to be executed, with nothing in it that a terminal obeys or hides; and whether it is trusted."""
        for one in self.commands:
            yield _plain(f"git configuration: {one.key} = {one.value}"), one.digest in known.commands
        if self.wanted:
            for line in self.wanted.recipe.lines():
                yield _plain(f"{self.wanted.file}: {line}"), self.wanted.digest in known.files
        if self.checkout.top and has_lost_verify(self.wanted, known):
            yield _plain(f"{self.checkout.top}/forkjoin.toml: no verify any more"), False

    def compare(self, known: Trusted) -> Iterator[str]:
        """Return the differences from the forkjoin.toml that was trusted last, if known."""
        now = self.wanted.content.decode() if self.wanted else ""
        if known.last not in (None, now):
            sides = ((known.last or "").splitlines(), now.splitlines())
            yield from map(_plain, unified_diff(*sides, "trusted last", "now", lineterm=""))

    def accepted(self, known: Trusted) -> Trusted:
        """Return the new trust, which may be the absence of a forkjoin.toml."""
        commands = frozenset(one.digest for one in self.commands)
        if self.wanted is None:
            return Trusted(commands)
        return Trusted(commands, known.files | {self.wanted.digest}, self.wanted.content.decode())

    def new(self, known: Trusted) -> Sequence[str]:
        return [text for text, trusted in self.list(known) if not trusted]


async def _find(home: Home) -> _Found:
    checkout = await read_checkout(Path.cwd())
    if checkout.top and Path(checkout.top).is_relative_to(home.worktrees.resolve()):
        raise CallerError("This is an agent's worktree. Go to your own checkout, and trust what is there.")
    return _Found(
        checkout, await list_entries_that_need_trust(checkout.common_dir), read_repository_config(home, checkout)
    )


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
