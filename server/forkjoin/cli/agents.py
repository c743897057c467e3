"""forkjoin spawn, ps, message, stop and rm."""

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

#: Seconds between two updates of `ps --watch`.
_WATCH_S = 1.0
#: Maximal agents in one result of list_agents.
_PAGE = 200
#: How many of the newest agents `ps` shows by default.
_DEFAULT_LIMIT = 200


def spawn(
    task: Annotated[
        str | None, typer.Argument(help="The task. Without it, or with -, each line of stdin is a task.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A short name. Default: made from the task.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent program: claude, or one from config.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, as that program names it.")] = None,
    base: Annotated[str | None, typer.Option(help="Commit, branch or agent to start from. Default: HEAD.")] = None,
    after: Annotated[list[str] | None, typer.Option(help="Id or name of an agent that must succeed first.")] = None,
    exclusive: Annotated[str | None, typer.Option(help="Agents with the same key never run at the same time.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher starts first. Default: 0.")] = None,
    verify: Annotated[str | None, typer.Option(help="Command that must exit 0 when the agent ends.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Run this many agents on each task; the best counts.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Command; the candidate for which it prints the highest number is the best.")
    ] = None,
    timeout_minutes: Annotated[float | None, typer.Option(help="End the agent after this time.")] = None,
    silence_minutes: Annotated[float | None, typer.Option(help="End the agent after this time without output.")] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Most it may spend. Then it pauses.")] = None,
    retries: Annotated[int | None, typer.Option(help="Retries after an error that may pass. Default: 2.")] = None,
    nesting: Annotated[int | None, typer.Option(help="How many agents it may spawn itself.")] = None,
    json: AsJson = False,
) -> None:
    """Start agents in the background, each in its own worktree."""
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
    print_answer(answer, (agent_line(agent, agent["branch"]) for agent in answer["agents"]), json=json)


def _read_agents(task: str | None, name: str | None) -> list[dict[str, str]]:
    """Return the argument `agents` of spawn_agents: an entry for each task.

    Raises:
        CallerError: A name is given for several tasks.
    """
    tasks = _read_tasks(task)
    if name and len(tasks) > 1:
        raise CallerError("--name is for a single task. Leave it out: names are made from the tasks")
    return [{"task": task, **({"name": name} if name else {})} for task in tasks]


def _read_tasks(task: str | None) -> list[str]:
    """Return the given task, or the lines of stdin if there is none or it is "-".

    Raises:
        CallerError: stdin has no such line.
    """
    if task not in (None, "-"):
        return [task]
    if sys.stdin.isatty():
        print_text("type one task per line, then ^D", err=True)
    if tasks := [line.strip() for line in sys.stdin if line.strip()]:
        return tasks
    raise CallerError("there is no task. Give one as an argument, or one per line on stdin")


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Include removed agents.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many of the newest agents to show, and those under way. 0: all. Default: 200, JSON: all.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Update the list until ^C.")] = False,
    json: AsJson = False,
) -> None:
    """List this repository's agents."""
    from forkjoin.cli import formatting

    out = formatting.console()
    with Client() as client:
        if json:
            return print_json({"agents": list_some(client, limit or 0, all=everything)[0]})

        def table() -> "RenderableType":
            rows, rest = list_some(client, _DEFAULT_LIMIT if limit is None else limit, all=everything)
            return formatting.agents_table(rows, out.width, rest)

        if not watch:
            return out.print(table())
        if not out.is_terminal or out.is_dumb_terminal:
            raise CallerError("--watch needs a terminal. Leave it out, or use forkjoin wait")
        from rich.live import Live

        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(table(), refresh=True)
                time.sleep(_WATCH_S)


def list_some(client: Client, limit: int, **chosen: Any) -> tuple[list[dict[str, Any]], int]:
    """Return rows of list_agents for the newest agents, and for all under way.

    Args:
        chosen: Arguments of list_agents that select agents.

    Returns: The rows, and the number of selected agents that have no row.
    """
    rows, counts = _read_pages(client, limit, **chosen)
    total = sum(counts.values())
    if 0 < len(rows) < total:
        live, _ = _read_pages(client, limit, state=[state for state in State if state not in FINAL], **chosen)
        rows += [agent for agent in live if int(agent["id"][1:]) < int(rows[-1]["id"][1:])]
    return rows, total - len(rows)


def list_all(client: Client, **chosen: Any) -> list[dict[str, Any]]:
    """Return the rows of all agents that these arguments of list_agents select."""
    return _read_pages(client, 0, **chosen)[0]


def _read_pages(client: Client, limit: int, **chosen: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Read list_agents page by page, up to `limit` agents (0: all).

    Returns: The agents' rows, and the number of all selected agents by state.
    """
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {"cursor": None}
    while "cursor" in page and (not limit or len(rows) < limit):
        room = min(_PAGE, limit - len(rows)) if limit else _PAGE
        page = client.call("list_agents", limit=room, cursor=page["cursor"], **chosen)
        rows += page["agents"]
    return rows, page["counts"]


def message(
    id: Annotated[str, typer.Argument(help="Agent id or name.")],  # noqa: A002
    text: Annotated[
        str | None, typer.Argument(help="The message. Without it, or with -, it is read from stdin.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Send an agent a message in its conversation.

    An agent that has ended is queued again for it.
    """
    answer = call_tool("message_agent", id=id, text=sys.stdin.read() if text in (None, "-") else text)
    when = "delivered" if answer["delivery"] == "now" else "will be delivered with its next turn"
    print_answer(answer, [agent_line(answer, when)], json=json)


def stop(ids: Ids, json: AsJson = False) -> None:
    """Stop agents and every process they started. Their work is committed and kept."""
    with note_on_interrupt("stop"):
        answer = call_tool("stop_agents", ids=ids)
    print_answer(
        answer,
        [*(agent_line(agent, agent.get("note", "")) for agent in answer["agents"]), *omitted_lines(answer)],
        json=json,
    )


def rm(
    ids: Ids,
    discard_unmerged: Annotated[
        bool, typer.Option(help="Also remove unmerged work. It stays under refs/forkjoin/kept/.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove the worktrees and branches of agents that have ended."""
    answer = call_tool("remove_worktrees", ids=ids, discard_unmerged=discard_unmerged)
    kept = {agent["id"]: f"  kept as {agent['kept_as']}" for agent in answer["removed"] if agent.get("kept_as")}
    lines = (f"{agent['id']}  {agent['name']}  removed{kept.get(agent['id'], '')}" for agent in answer["removed"])
    print_answer(answer, [*lines, *omitted_lines(answer), *answer.get("warnings", [])], json=json)
