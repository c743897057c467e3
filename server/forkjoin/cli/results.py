"""Commands that read what came of an agent: logs, result and diff."""

import re
import sys
import time
from typing import Annotated, NamedTuple

import typer

from forkjoin.cli.mcp_client import Client, call_tool
from forkjoin.cli.safe_output import AsJson, escape_controls, print_json, print_text

Id = Annotated[str, typer.Argument(help="Agent id or name.")]

_FOLLOW_EVERY_S = 0.3
#: Where a page of text ends, as its last line says.
_WHERE = re.compile(r"\[(?P<word>more|end)[^\[\]]*?(?P<within>, in mid-line)?(?:: offset=(?P<offset>\d+))?\]\Z")


class _Page(NamedTuple):
    """A page of a log or a diff; `offset` is where the next begins, `is_last` that there is none yet."""

    text: str
    offset: int | None
    is_last: bool


def _read_page(text: str) -> _Page:
    where = _WHERE.search(text)
    if where is None:
        return _Page(f"{text}\n", None, is_last=True)
    body = text[: where.start()]
    offset = int(where["offset"]) if where["offset"] else None
    return _Page(body.removesuffix("\n") if where["within"] else body, offset, where["word"] == "end")


def logs(
    id: Id,  # noqa: A002
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the agent has ended.")] = False,
    raw: Annotated[bool, typer.Option(help="The program's output as it was.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Only the last lines, so many.")] = None,
) -> None:
    """Show what an agent said and did."""
    offset: int | None = 0
    with Client() as client:
        while offset is not None:
            where = {"offset": offset} if tail is None else {"tail": tail}
            page = _read_page(client.call("read_log", id=id, raw=raw, **where))
            if raw and not sys.stdout.isatty():
                sys.stdout.write(page.text)
                sys.stdout.flush()
            else:
                print_text(page.text, end="")
            if page.is_last and not follow:
                return
            offset, tail = page.offset, None
            if page.is_last and offset is not None:
                time.sleep(_FOLLOW_EVERY_S)


def diff(
    id: Id,  # noqa: A002
    path: Annotated[str | None, typer.Argument(help="Only this file or folder.")] = None,
    stat: Annotated[bool, typer.Option(help="Only names and sizes.")] = False,
) -> None:
    """Show what an agent changed."""
    offset: int | None = 0
    with Client() as client:
        while offset is not None:
            page = _read_page(client.call("read_diff", id=id, path=path, stat=stat, offset=offset))
            print_text(page.text, end="")
            offset = page.offset


def result(id: Id, full: Annotated[bool, typer.Option(help="All of it.")] = False, json: AsJson = False) -> None:  # noqa: A002
    """Show what came of an agent."""
    answer = call_tool("get_result", id=id, detail="full" if full else "concise")
    if json:
        return print_json(answer)
    from forkjoin.cli import formatting

    out = formatting.console()
    out.print(
        f"{answer['id']} {answer['name']}: {formatting.coloured(answer['state'])}, "
        f"{formatting.coloured(answer['merge'])}"
    )
    facts = (
        f"{answer['files_changed']} files, +{answer['insertions']} -{answer['deletions']}, "
        f"{len(answer['commits'])} commits on {answer['branch']}; verify {answer['verify']}; "
        f"{formatting.duration(answer['duration_s'])}"
    )
    warnings = (f"! {warning}" for warning in answer["warnings"])
    for line in (
        facts,
        *answer["commits"],
        answer["output"],
        answer.get("error"),
        answer.get("verify_output"),
        *warnings,
    ):
        if line:
            out.print(escape_controls(line), markup=False, soft_wrap=True)
    if "candidates" in answer:
        out.print(formatting.candidates_table(answer["candidates"]))
    return None
