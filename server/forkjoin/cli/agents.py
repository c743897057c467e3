"""Commands for agents: spawn, ps, logs, wait, result, diff, stop, rm."""

import sys
import time
from typing import Annotated, Any, Literal

import typer

from forkjoin.cli.client import Client
from forkjoin.cli.say import say, visible
from forkjoin.error import CallerError
from forkjoin.paths import find_home

Json = Annotated[bool, typer.Option("--json", help="Print what the tool answered, as JSON.")]
Ids = Annotated[list[str], typer.Argument(help="Agent ids or names.")]
Id = Annotated[str, typer.Argument(help="Agent id or name.")]

_WATCH_EVERY_S = 1.0
_FOLLOW_EVERY_S = 0.3
_WAIT_STEP_S = 1.0
#: What a wait for nobody answers.
_NOBODY: dict[str, Any] = {"finished": [], "pending": [], "requests": [], "timed_out": False}


def add_to(app: typer.Typer) -> None:
    for command in (spawn, ps, logs, wait, result, diff, stop, rm):
        app.command()(command)


def spawn(
    task: Annotated[str | None, typer.Argument(help="The task; without it, or with -, one a line from stdin.")] = None,
    name: Annotated[str | None, typer.Option(help="A short name, instead of one made from the task.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent program: claude, or one from config.toml.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, as that program names it.")] = None,
    base: Annotated[str | None, typer.Option(help="Commit or branch to start from; default HEAD.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher starts first; default 0.")] = None,
    verify: Annotated[str | None, typer.Option(help="Command that must exit 0 at the agent's end.")] = None,
    timeout_minutes: Annotated[float | None, typer.Option(help="Ends the agent after so long.")] = None,
    silence_minutes: Annotated[float | None, typer.Option(help="Ends it when it printed nothing for so long.")] = None,
    json: Json = False,
) -> None:
    """Start agents in the background, each in a worktree of its own."""
    tasks = [task] if task not in (None, "-") else [line.strip() for line in sys.stdin if line.strip()]
    if not tasks:
        raise CallerError("no task: give one as an argument, or one a line on stdin")
    if name and len(tasks) > 1:
        raise CallerError("--name is for one task; without it, names are made from the tasks")
    agents = [{"task": one, **({"name": name} if name else {})} for one in tasks]
    parts = {"agent": agent, "model": model, "base": base, "verify": verify}
    limits = {"priority": priority, "timeout_minutes": timeout_minutes, "silence_minutes": silence_minutes}
    with Client(find_home()) as client:
        answer = client.call("spawn_agents", agents=agents, **limits, **parts)
    if json:
        from forkjoin.cli.show import as_json

        return as_json(answer)
    for one in answer["agents"]:
        say(f"{one['id']}  {one['name']}  {one['state']}  {one['branch']}")
    if answer.get("note"):
        say(answer["note"], err=True)
    return None


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Removed ones too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing, until ^C.")] = False,
    json: Json = False,
) -> None:
    """List this repository's agents."""
    from forkjoin.cli import show

    with Client(find_home()) as client:
        if json:
            return show.as_json({"agents": _list(client, everything)})
        if not watch:
            return show.console().print(show.agents_table(_list(client, everything)))
        from rich.live import Live

        with Live(console=show.console(), screen=False, auto_refresh=False) as live:
            while True:
                live.update(show.agents_table(_list(client, everything)), refresh=True)
                time.sleep(_WATCH_EVERY_S)


def _list(client: Client, everything: bool) -> list[dict[str, Any]]:
    """All pages of list_agents."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.call("list_agents", all=everything, cursor=cursor, limit=200)
        rows += page["agents"]
        cursor = page.get("cursor")
        if cursor is None:
            return rows


def logs(
    id: Id,  # noqa: A002
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the agent has ended.")] = False,
    raw: Annotated[bool, typer.Option(help="The program's output as it was.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Only the last lines, so many.")] = None,
) -> None:
    """Show what an agent said and did."""
    offset: int | None = 0
    with Client(find_home()) as client:
        while True:
            text = client.call("read_log", id=id, raw=raw, offset=offset if tail is None else None, tail=tail)
            body, _, where = text.rpartition("[")
            if body.strip():
                if raw and not sys.stdout.isatty():
                    sys.stdout.write(body.rstrip("\n") + "\n")
                else:
                    say(body.rstrip("\n"))
            word, _, number = where.rstrip("]").partition("offset=")
            if not number or (tail is not None and not follow):
                return
            offset, tail = int(number), None
            if word.startswith("end"):
                if not follow:
                    return
                time.sleep(_FOLLOW_EVERY_S)


def wait(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Agent ids or names; default: all of this repository.")
    ] = None,
    any: Annotated[bool, typer.Option("--any", help="Return when one has ended.")] = False,  # noqa: A002
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.")] = None,
    json: Json = False,
) -> None:
    """Wait until agents have ended. Exit code 1 if one of them did not succeed, or time ran out."""
    until: Literal["all", "any"] = "any" if any else "all"
    with Client(find_home()) as client:
        wanted = ids or _whom(client)
        answer = _wait(client, wanted, until, timeout, quiet=json) if wanted else _NOBODY
    if json:
        from forkjoin.cli.show import as_json

        as_json(answer)
    else:
        for one in answer["finished"]:
            say(f"{one['id']}  {one['name']}  {one['state']}  {one['summary']}")
    if answer.get("timed_out") or any_failed(answer["finished"]):
        raise typer.Exit(1)


def _whom(client: Client) -> list[str]:
    """Whom a wait without ids is for: what is under way, and what ended since the last such wait."""
    answer = client.call("wait_agents", timeout_s=0)
    return [one["id"] for one in (*answer["finished"], *answer["pending"])]


def any_failed(finished: list[dict[str, Any]]) -> bool:
    return not all(one["state"] == "succeeded" for one in finished)


def _wait(
    client: Client, ids: list[str], until: Literal["all", "any"], timeout: float | None, *, quiet: bool
) -> dict[str, Any]:
    """Wait in short steps, so that ^C is heard at once and the bar moves."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from forkjoin.cli import show

    give_up = None if timeout is None else time.monotonic() + timeout
    columns = (
        TextColumn("waiting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[who]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=show.console(stderr=True), transient=True, disable=quiet) as progress:
        bar = progress.add_task("", total=len(ids), who="")
        while True:
            left = _WAIT_STEP_S if give_up is None else max(0.0, min(_WAIT_STEP_S, give_up - time.monotonic()))
            answer: dict[str, Any] = client.call("wait_agents", ids=ids, until=until, timeout_s=left)
            who = " ".join(one["id"] for one in answer["pending"][:8])
            progress.update(
                bar, total=len(answer["finished"]) + len(answer["pending"]), completed=len(answer["finished"]), who=who
            )
            if not answer["timed_out"] or (give_up is not None and time.monotonic() >= give_up):
                return answer


def result(id: Id, full: Annotated[bool, typer.Option(help="All of it.")] = False, json: Json = False) -> None:  # noqa: A002
    """Show what came of an agent."""
    from forkjoin.cli import show

    with Client(find_home()) as client:
        answer = client.call("get_result", id=id, detail="full" if full else "concise")
    if json:
        return show.as_json(answer)
    out = show.console()
    facts = (
        f"{answer['files_changed']} files, +{answer['insertions']} -{answer['deletions']}, "
        f"{len(answer['commits'])} commits on {answer['branch']}; verify {answer['verify']}; "
        f"{show.duration(answer['duration_s'])}"
    )
    out.print(f"{answer['id']} {answer['name']}: {show.coloured(answer['state'])}, {show.coloured(answer['merge'])}")
    out.print(visible(facts), markup=False)
    for line in (*answer["commits"], answer["output"], answer.get("error"), answer.get("verify_output")):
        if line:
            out.print(visible(line), markup=False)
    for warning in answer["warnings"]:
        out.print(visible(f"! {warning}"), markup=False)
    return None


def diff(
    id: Id,  # noqa: A002
    path: Annotated[str | None, typer.Argument(help="Only this file or folder.")] = None,
    stat: Annotated[bool, typer.Option(help="Only names and sizes.")] = False,
) -> None:
    """Show what an agent changed."""
    offset: int | None = 0
    with Client(find_home()) as client:
        while offset is not None:
            text = client.call("read_diff", id=id, path=path, stat=stat, offset=offset)
            body, found, where = text.rpartition("\n[")
            say(body if found else text)
            number = where.rstrip("]").partition("offset=")[2]
            offset = int(number) if number else None


def stop(ids: Ids, json: Json = False) -> None:
    """Stop agents, with every process they started; their work is committed and kept."""
    with Client(find_home()) as client:
        answer = client.call("stop_agents", ids=ids)
    if json:
        from forkjoin.cli.show import as_json

        return as_json(answer)
    for one in answer["agents"]:
        note = f"  {one['note']}" if one.get("note") else ""
        say(f"{one['id']}  {one['name']}  {one['state']}{note}")
    return None


def rm(
    ids: Ids,
    discard_unmerged: Annotated[
        bool, typer.Option(help="Also those with unmerged work (it stays under refs/forkjoin/kept/).")
    ] = False,
    json: Json = False,
) -> None:
    """Take away the worktrees and branches of agents that have ended."""
    with Client(find_home()) as client:
        answer = client.call("remove_worktrees", ids=ids, discard_unmerged=discard_unmerged)
    if json:
        from forkjoin.cli.show import as_json

        return as_json(answer)
    for one in answer["removed"]:
        kept = f"  kept as {one['kept_as']}" if one.get("kept_as") else ""
        say(f"{one['id']}  {one['name']}  removed{kept}")
    return None
