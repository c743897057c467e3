"""forkjoin wait: until agents have ended."""

import math
import time
from typing import Annotated, Any

import typer

from forkjoin.cli.agents import list_all
from forkjoin.cli.client import Client
from forkjoin.cli.requests import line
from forkjoin.cli.say import Json, row, tell, visible
from forkjoin.model import FINAL, State

_STEP_S = 1.0
#: How many the tool may be asked for at once.
_ASKED = 500


def wait(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Agent ids or names; default: all of this repository.")
    ] = None,
    any: Annotated[bool, typer.Option("--any", help="Return when one has ended.")] = False,  # noqa: A002
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    json: Json = False,
) -> None:
    """Wait until agents have ended. Exit code 1 if one of them did not succeed, or time ran out."""
    with Client() as client:
        answer = _wait(client, _named(client, ids) if ids else _whom(client), timeout, first=any, quiet=json)
    ended = answer["finished"]
    tell(answer, (row(one, one["summary"]) for one in ended), json=json)
    if answer["timed_out"] or not all(one["state"] == "succeeded" for one in ended):
        raise typer.Exit(1)


def _named(client: Client, names: list[str]) -> list[str]:
    """The ids of whom these mean, which may be several candidates each."""
    parts = (names[start : start + _ASKED] for start in range(0, len(names), _ASKED))
    return [one["id"] for part in parts for one in list_all(client, ids=part)]


def _whom(client: Client) -> list[str]:
    """Whom a wait without ids is for: what is under way, and what ended since the last such wait."""
    live = list_all(client, state=[state for state in State if state not in FINAL])
    ids = dict.fromkeys(one["id"] for one in reversed(live))
    while ended := client.call("wait_agents", timeout_s=0)["finished"]:  # one answer tells of so many
        ids |= dict.fromkeys(one["id"] for one in ended)
    return list(ids)


def _wait(client: Client, left: list[str], timeout: float | None, *, first: bool, quiet: bool) -> dict[str, Any]:
    """What the tool would answer if it had room for all; in short steps, so that ^C is heard and the bar moves."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from forkjoin.cli import show

    give_up = math.inf if timeout is None else time.monotonic() + timeout
    columns = ("waiting", BarColumn(), MofNCompleteColumn(), "{task.fields[who]}", TimeElapsedColumn())
    answer: dict[str, Any] = {"finished": [], "pending": [], "timed_out": False}
    ended: dict[str, dict[str, Any]] = {}
    told = set[str]()  # requests
    with Progress(*columns, console=show.console(stderr=True), transient=True, disable=quiet) as progress:
        bar = progress.add_task("", total=len(left), who="")
        while left and not (first and ended):
            step = max(0.0, min(_STEP_S, give_up - time.monotonic()))
            answer = client.call("wait_agents", ids=left[:_ASKED], until="any", timeout_s=step)
            ended |= {one["id"]: one for one in answer["finished"]}
            for request in answer.get("requests", []):
                if request["request_id"] not in told:
                    progress.print(visible(line(request)), markup=False, highlight=False)
                    told.add(request["request_id"])
            left = [one for one in (*left[_ASKED:], *left[:_ASKED]) if one not in ended]
            progress.update(bar, completed=len(ended), who=" ".join(one["id"] for one in answer["pending"][:8]))
            if answer["timed_out"] and time.monotonic() >= give_up:
                break
    return answer | {"finished": list(ended.values())}
