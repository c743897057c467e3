"""Commands for joining: merge."""

from typing import Annotated, Any

import typer

from forkjoin.cli.agents import Ids, Json
from forkjoin.cli.client import Client
from forkjoin.cli.say import say
from forkjoin.paths import find_home


def add_to(app: typer.Typer) -> None:
    app.command("merge")(merge)


def merge(
    ids: Ids,
    into: Annotated[str | None, typer.Option(help="Branch to merge into; default: the one checked out here.")] = None,
    verify: Annotated[str | None, typer.Option(help="Command that each merged state must pass.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would merge and what conflicts.")] = False,
    json: Json = False,
) -> None:
    """Merge agents' branches, one after the other, each verified. Exit code 1 if one did not land."""
    from forkjoin.cli.show import as_json

    with Client(find_home()) as client:
        answer = client.call("merge_worktree", ids=ids, into=into, verify=verify, dry_run=dry_run)
    if json:
        as_json(answer)
    else:
        _show(answer, dry_run=dry_run)
    if answer["conflicted"] or answer["rejected"]:
        raise typer.Exit(1)


def _show(answer: dict[str, Any], *, dry_run: bool) -> None:
    for one in answer["merged"]:
        say(f"{one['id']}  {'would merge' if dry_run else 'merged'}")
    for one in answer["conflicted"]:
        say(f"{one['id']}  conflicts in {', '.join(one['files'])}")
    for one in answer["rejected"]:
        say(f"{one['id']}  rejected: {one['why']}")
    for one in answer["skipped"]:
        say(f"{one['id']}  skipped: {one['why']}")
    if answer.get("note"):
        say(answer["note"], err=True)
    if not dry_run:
        say(f"{answer['target']} is at {answer['commit'][:10]}")
