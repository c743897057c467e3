"""Commands for agents: spawn, ps, message, stop and rm."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forkjoin.cli.mcp_client import Client, call_tool
from forkjoin.cli.safe_output import (
    AsJson,
    agent_line,
    note_on_interrupt,
    omitted_lines,
    print_answer,
    print_json,
    print_text,
)
from forkjoin.core.error import CallerError
from forkjoin.core.model import FINAL, State

if TYPE_CHECKING:
    from rich.console import RenderableType

Ids = Annotated[list[str], typer.Argument(help="Agent ids or names.")]

_WATCH_EVERY_S = 1.0
#: Agents of a page of list_agents, and how many `ps` shows of each kind.
_PAGE = _SHOWN = 200


def spawn(
    task: Annotated[str | None, typer.Argument(help="The task; without it, or with -, one a line from stdin.")] = None,
    name: Annotated[str | None, typer.Option(help="A short name, instead of one made from the task.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent program: claude, or one from config.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, as that program names it.")] = None,
    base: Annotated[str | None, typer.Option(help="Commit, branch or agent to start from; default HEAD.")] = None,
    after: Annotated[list[str] | None, typer.Option(help="Id or name of an agent that must succeed first.")] = None,
    exclusive: Annotated[str | None, typer.Option(help="Of those that share this key one runs at a time.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher starts first; default 0.")] = None,
    verify: Annotated[str | None, typer.Option(help="Command that must exit 0 at the agent's end.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Try each task so many times, to take the best.")] = None,
    judge: Annotated[str | None, typer.Option(help="Command whose highest number tells the best candidate.")] = None,
    timeout_minutes: Annotated[float | None, typer.Option(help="Ends the agent after so long.")] = None,
    silence_minutes: Annotated[float | None, typer.Option(help="Ends it when it printed nothing for so long.")] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Most it may spend; at that it pauses.")] = None,
    retries: Annotated[int | None, typer.Option(help="Tries after passing trouble; default 2.")] = None,
    nesting: Annotated[int | None, typer.Option(help="How many agents it may spawn itself.")] = None,
    json: AsJson = False,
) -> None:
    """Start agents in the background, each in a worktree of its own."""
    answer = call_tool(
        "spawn_agents",
        agents=_read_agents(task, name),
        agent=agent,
        model=model,
        base=base,
        after=after or None,
        exclusive=exclusive,
        priority=priority,
        verify=verify,
        candidates=candidates,
        judge=judge,
        timeout_minutes=timeout_minutes,
        silence_minutes=silence_minutes,
        budget_usd=budget_usd,
        retries=retries,
        nesting=nesting and {"agents": nesting},
    )
    print_answer(answer, (agent_line(one, one["branch"]) for one in answer["agents"]), json=json)


def _read_agents(task: str | None, name: str | None) -> list[dict[str, str]]:
    """An agent for each task, called so where there is one."""
    tasks = _read_tasks(task)
    if name and len(tasks) > 1:
        raise CallerError("--name is for one task; without it, names are made from the tasks")
    return [{"task": one, **({"name": name} if name else {})} for one in tasks]


def _read_tasks(task: str | None) -> list[str]:
    """The task that was given, else those on stdin."""
    if task not in (None, "-"):
        return [task]
    if sys.stdin.isatty():
        print_text("a task a line, then ^D", err=True)
    if tasks := [line.strip() for line in sys.stdin if line.strip()]:
        return tasks
    raise CallerError("no task: give one as an argument, or one a line on stdin")


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Removed ones too.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many of the newest agents to show, next to those under way. 0: all. Default: 200; JSON: all.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing, until ^C.")] = False,
    json: AsJson = False,
) -> None:
    """List this repository's agents."""
    from forkjoin.cli import formatting

    out = formatting.console()
    with Client() as client:
        if json:
            return print_json({"agents": list_some(client, limit or 0, all=everything)[0]})

        def table() -> "RenderableType":
            rows, rest = list_some(client, _SHOWN if limit is None else limit, all=everything)
            return formatting.agents_table(rows, out.width, rest)

        if not watch:
            return out.print(table())
        if not out.is_terminal or out.is_dumb_terminal:
            raise CallerError("--watch draws on a terminal, and this is none; leave it out, or see forkjoin wait")
        from rich.live import Live

        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(table(), refresh=True)
                time.sleep(_WATCH_EVERY_S)


def list_some(client: Client, limit: int, **chosen: Any) -> tuple[list[dict[str, Any]], int]:
    """Return the newest and active agents (0: all), and the number omitted."""
    rows, counts = _list(client, limit, **chosen)
    total = sum(counts.values())
    if 0 < len(rows) < total:
        live, _ = _list(client, limit, state=[state for state in State if state not in FINAL], **chosen)
        rows += [one for one in live if int(one["id"][1:]) < int(rows[-1]["id"][1:])]
    return rows, total - len(rows)


def list_all(client: Client, **chosen: Any) -> list[dict[str, Any]]:
    """All pages of list_agents."""
    return _list(client, 0, **chosen)[0]


def _list(client: Client, limit: int, **chosen: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the first `limit` agents of list_agents (0: all), page by page, and how many there are by state."""
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {"cursor": None}
    while "cursor" in page and (not limit or len(rows) < limit):
        room = min(_PAGE, limit - len(rows)) if limit else _PAGE
        page = client.call("list_agents", limit=room, cursor=page["cursor"], **chosen)
        rows += page["agents"]
    return rows, page["counts"]


def message(
    id: Annotated[str, typer.Argument(help="Agent id or name.")],  # noqa: A002
    text: Annotated[str | None, typer.Argument(help="The message; without it, or with -, from stdin.")] = None,
    json: AsJson = False,
) -> None:
    """Tell an agent something more, in the same conversation; one that has ended goes on with it."""
    answer = call_tool("message_agent", id=id, text=sys.stdin.read() if text in (None, "-") else text)
    when = "told now" if answer["delivery"] == "now" else "told with its next turn"
    print_answer(answer, [agent_line(answer, when)], json=json)


def stop(ids: Ids, json: AsJson = False) -> None:
    """Stop agents, with every process they started; their work is committed and kept."""
    with note_on_interrupt("stop"):
        answer = call_tool("stop_agents", ids=ids)
    print_answer(
        answer, [*(agent_line(one, one.get("note", "")) for one in answer["agents"]), *omitted_lines(answer)], json=json
    )


def rm(
    ids: Ids,
    discard_unmerged: Annotated[
        bool, typer.Option(help="Also those with unmerged work (it stays under refs/forkjoin/kept/).")
    ] = False,
    json: AsJson = False,
) -> None:
    """Take away the worktrees and branches of agents that have ended."""
    answer = call_tool("remove_worktrees", ids=ids, discard_unmerged=discard_unmerged)
    kept = {one["id"]: f"  kept as {one['kept_as']}" for one in answer["removed"] if one.get("kept_as")}
    lines = (f"{one['id']}  {one['name']}  removed{kept.get(one['id'], '')}" for one in answer["removed"])
    print_answer(answer, [*lines, *omitted_lines(answer), *answer.get("warnings", [])], json=json)
