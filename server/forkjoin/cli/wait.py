"""forkjoin wait."""

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forkjoin.cli.agents import list_all
from forkjoin.cli.mcp_client import Client
from forkjoin.cli.requests import request_line
from forkjoin.cli.safe_output import AsJson, agent_line, print_answer, print_text
from forkjoin.core.error import CallerError

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds of one wait_agents call: short, so that ^C has an effect and the bar moves.
_STEP_S = 1.0
#: Maximal agents in one call.
_MOST_IDS = 500


def wait(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Agent ids or names. Default: all of this repository.")
    ] = None,
    any: Annotated[bool, typer.Option("--any", help="Return when one agent has ended.")] = False,  # noqa: A002
    timeout: Annotated[float | None, typer.Option(help="Maximal seconds to wait.")] = None,
    json: AsJson = False,
) -> None:
    """Wait until agents have ended, or an agent asks something.

    Exit code 1 unless all of them succeeded.
    """
    if timeout is not None and not timeout >= 0:  # also refuses nan
        raise CallerError(f"--timeout {timeout:g} is not valid. Give seconds, 0 or more")
    give_up = math.inf if timeout is None else time.monotonic() + timeout
    with Client() as client:
        waiting = Waiting(client, ids and _find_ids(client, ids), give_up, first=any)
        try:
            with _bar(hidden=json) as progress:
                waiting.wait(progress)
        except KeyboardInterrupt:
            if not json:
                for line in waiting.lines():  # the next wait would not report these agents again
                    print_text(line)
            raise
    ended = list(waiting.ended.values())
    print_answer(waiting.answer | {"finished": ended}, waiting.lines(), json=json)
    if waiting.answer["timed_out"] and not json:
        pending = ", ".join(agent["id"] for agent in waiting.answer["pending"])
        print_text(f"the time is up; still under way: {pending}", err=True)
    if not (waiting.is_over and all(agent["state"] == "succeeded" for agent in ended)):
        raise typer.Exit(1)


def _find_ids(client: Client, names: list[str]) -> list[str]:
    """Return the ids of agents. The common name of candidates means all of them."""
    parts = (names[start : start + _MOST_IDS] for start in range(0, len(names), _MOST_IDS))
    return [agent["id"] for part in parts for agent in list_all(client, ids=part)]


def _bar(*, hidden: bool) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from forkjoin.cli import formatting

    columns = ("waiting", BarColumn(), MofNCompleteColumn(), "{task.fields[who]}", TimeElapsedColumn())
    return Progress(*columns, console=formatting.console(stderr=True), transient=True, disable=hidden)


class Waiting:
    """The progress of one wait.

    Attributes:
        answer: The last result of wait_agents.
        ended: The rows of agents that have ended, by id.
        is_over: Whether all agents (or one, with --any) have ended.
    """

    def __init__(self, client: Client, ids: list[str] | None, give_up: float, *, first: bool) -> None:
        self._client = client
        #: Ids of agents that have not ended. `None` without given ids, until a result names all agents under way.
        self._left: list[str] | None = ids
        self._give_up = give_up
        self._first = first
        self.answer: dict[str, Any] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.is_over = False

    def wait(self, progress: "Progress") -> None:
        """Wait until the agents have ended or time is up.

        Returns early if an agent asks something, or if waiting won't help.
        """
        bar = progress.add_task("", total=None, who="")
        while self._step():
            who = " ".join(agent["id"] for agent in self.answer["pending"][:8])
            progress.update(bar, completed=len(self.ended), total=len(self.ended) + self._count(), who=who)

    def lines(self) -> list[str]:
        """Return a line for each ended agent, request, and reason to wait."""
        ended = [agent_line(agent, agent["summary"]) for agent in self.ended.values()]
        return [*ended, *map(request_line, self.answer.get("requests", [])), *self.answer.get("waiting", [])]

    def _step(self) -> bool:
        """Wait for one step. Return whether to wait on."""
        step_s = max(0.0, min(_STEP_S, self._give_up - time.monotonic()))
        ids = self._left and self._left[:_MOST_IDS]
        self.answer = self._client.call("wait_agents", ids=ids, until="any", timeout_s=step_s)
        new = {agent["id"]: agent for agent in self.answer["finished"] if agent["id"] not in self.ended}
        self.ended |= new
        if self._left:
            rotated = (*self._left[_MOST_IDS:], *self._left[:_MOST_IDS])
            self._left = [agent_id for agent_id in rotated if agent_id not in self.ended]
        elif self._left is None and "more" not in self.answer:
            self._left = [str(agent["id"]) for agent in self.answer["pending"]]
        is_asked = any("new" in request for request in self.answer.get("requests", []))
        self.is_over = not self._count() or bool(self._first and self.ended)
        if self.is_over or is_asked:
            return False
        return time.monotonic() < self._give_up if self.answer["timed_out"] else bool(new)

    def _count(self) -> int:
        """Return the number of agents that have not ended."""
        if self._left is not None:
            return len(self._left)
        left: int = len(self.answer["pending"]) + self.answer.get("more", 0)
        return left
