"""forkjoin logs, diff and result."""

import re
import sys
import time
from typing import Annotated, NamedTuple

import typer

from forkjoin.cli.mcp_client import Client, call_tool
from forkjoin.cli.safe_output import AsJson, escape_controls, print_json, print_text

Id = Annotated[str, typer.Argument(help="Agent id or name.")]

#: Seconds between two reads of `logs --follow`.
_FOLLOW_S = 0.3
#: The mark at the end of a page of text.
_PAGE_MARK = re.compile(r"\[(?P<word>more|end)[^\[\]]*?(?P<within>, in mid-line)?(?:: offset=(?P<offset>\d+))?\]\Z")


class _Page(NamedTuple):
    """A page of a log or a diff.

    Attributes:
        offset: Where the next page begins, or `None` if there will be none.
        is_last: Whether there is no further page yet.
    """

    text: str
    offset: int | None
    is_last: bool


def _parse_page(text: str) -> _Page:
    mark = _PAGE_MARK.search(text)
    if mark is None:
        return _Page(f"{text}\n", None, is_last=True)
    body = text[: mark.start()]
    offset = int(mark["offset"]) if mark["offset"] else None
    return _Page(body.removesuffix("\n") if mark["within"] else body, offset, mark["word"] == "end")


def logs(
    id: Id,  # noqa: A002
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the agent has ended.")] = False,
    raw: Annotated[bool, typer.Option(help="Show the program's raw output.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Show only this many last lines.")] = None,
) -> None:
    """Show what an agent said and did."""
    offset: int | None = 0
    with Client() as client:
        while offset is not None:
            part = {"offset": offset} if tail is None else {"tail": tail}
            page = _parse_page(client.call("read_log", id=id, raw=raw, **part))
            if raw and not sys.stdout.isatty():
                sys.stdout.write(page.text)
                sys.stdout.flush()
            else:
                print_text(page.text, end="")
            if page.is_last and not follow:
                return
            offset, tail = page.offset, None
            if page.is_last and offset is not None:
                time.sleep(_FOLLOW_S)


def diff(
    id: Id,  # noqa: A002
    path: Annotated[str | None, typer.Argument(help="Only this file or folder.")] = None,
    stat: Annotated[bool, typer.Option(help="Show only file names and sizes.")] = False,
) -> None:
    """Show what an agent changed."""
    offset: int | None = 0
    with Client() as client:
        while offset is not None:
            page = _parse_page(client.call("read_diff", id=id, path=path, stat=stat, offset=offset))
            print_text(page.text, end="")
            offset = page.offset


def result(
    id: Id,  # noqa: A002
    full: Annotated[bool, typer.Option(help="Show longer output, error and commits.")] = False,
    json: AsJson = False,
) -> None:
    """Show the outcome of an agent."""
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
