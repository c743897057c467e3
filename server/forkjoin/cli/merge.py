"""forkjoin merge and undo."""

from typing import Annotated, Any

import typer

from forkjoin.cli.agents import Ids
from forkjoin.cli.mcp_client import call_tool
from forkjoin.cli.safe_output import AsJson, note_on_interrupt, print_answer


def merge(
    ids: Ids,
    into: Annotated[str | None, typer.Option(help="Branch to merge into. Default: the one checked out here.")] = None,
    verify: Annotated[str | None, typer.Option(help="Command that the merged result must pass.")] = None,
    squash: Annotated[bool | None, typer.Option(help="One commit per agent. Default: from the settings.")] = None,
    on_conflict: Annotated[
        str | None, typer.Option(help="agent: spawn an agent for each conflict to resolve it.")
    ] = None,
    include_failed: Annotated[bool, typer.Option(help="Also merge agents that did not succeed.")] = False,
    confirm: Annotated[bool, typer.Option(help="Also change a protected branch.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only show what would merge and what conflicts.")] = False,
    json: AsJson = False,
) -> None:
    """Merge agents' branches in this order, verified together.

    Exit code 1 if some work was not merged.
    """
    with note_on_interrupt("merge"):
        answer = call_tool(
            "merge_worktree",
            ids=ids,
            into=into,
            verify=verify,
            strategy={None: None, True: "squash", False: "merge"}[squash],
            on_conflict=on_conflict,
            include_failed=include_failed,
            confirm=confirm,
            dry_run=dry_run,
        )
    lines = [f"{branch['id']}  {'would merge' if dry_run else 'merged'}" for branch in answer["merged"]]
    lines += [
        f"{branch['id']}  conflicts in {', '.join(branch['files'])}{_resolver_note(branch)}"
        for branch in answer["conflicted"]
    ]
    lines += [f"{branch['id']}  rejected: {branch['why']}" for branch in answer["rejected"]]
    lines += [f"{branch['id']}  skipped: {branch['why']}" for branch in answer["skipped"]]
    if not dry_run:
        lines.append(f"{answer['target']} is at {answer['commit'][:10]}")
    print_answer(answer, lines, json=json)
    if answer["conflicted"] or answer["rejected"] or any(_has_unmerged_work(branch) for branch in answer["skipped"]):
        raise typer.Exit(1)


def _has_unmerged_work(skipped: dict[str, str]) -> bool:
    """Return whether a skipped agent has work that is not in the target."""
    from forkjoin.merge_queue.report import NOTHING_LEFT_TO_MERGE

    return skipped["why"] not in NOTHING_LEFT_TO_MERGE


def _resolver_note(conflicted: dict[str, Any]) -> str:
    """Return a note with the agent that resolves a conflict, or ''."""
    return f"; {conflicted['resolving']} resolves it" if "resolving" in conflicted else ""


def undo(
    into: Annotated[str | None, typer.Option(help="The branch. Default: the one checked out here.")] = None,
    confirm: Annotated[bool, typer.Option(help="Also change a protected branch.")] = False,
    json: AsJson = False,
) -> None:
    """Undo the last merge into a branch.

    The branch is reset, or the merge is reverted if there are later commits.
    """
    with note_on_interrupt("undo"):
        answer = call_tool("undo_merge", into=into, confirm=confirm)
    line = f"undone: {', '.join(answer['undone'])}; {answer['target']} is at {answer['commit'][:10]}"
    print_answer(answer, [line, *([answer["note"]] if "note" in answer else [])], json=json)
