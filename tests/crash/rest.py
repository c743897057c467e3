"""Bringing a world to rest: all calls are answered or their relays dead, and no agent, merge or command runs."""

from typing import Any

from crash.kill import running
from crash.lead import Lead
from crash.operation import ask
from crash.world import GIVE_UP_S, World, WrongError


def bring_to_rest(world: World) -> None:
    """Stop the agents that never end by themselves, and wait for everything else.

    Raises:
        WrongError: Something did not end in time.
    """
    for lead in world.leads:
        if lead.killed:
            world.reopen(lead)
    world.until(lambda: _is_quiet(world), "rest:", lambda: _activity(world))
    for command in world.commands:
        command.wait(GIVE_UP_S)
    world.commands.clear()
    _remove_again(world)
    for person in world.people:
        world.until(lambda: not person.owes_commit or person.commit(), "a person's commit to succeed")  # noqa: B023
    world.until(lambda: _strays(world) == [], "all processes to end:", lambda: _strays(world))


def _is_quiet(world: World) -> bool:
    for lead in world.leads:
        if not lead.is_running:
            raise WrongError(f"the relay of {lead.name} ended by itself with exit code {lead.process.wait()}")
    live = _live(world)
    _stop_endless(world, live)
    waiting = any(lead.unanswered for lead in world.leads) or any(command.poll() is None for command in world.commands)
    return not (live or waiting or _open_merges(world))


def _activity(world: World) -> str:
    """Return a description of what still runs."""
    calls = [f"{lead.name} {call}" for lead in world.leads for call in lead.unanswered]
    agents = [f"{agent['id']} {agent['state']}" for agent in _live(world)]
    return f"{calls}, {agents}, {len(_open_merges(world))} merges"


def agents(world: World) -> list[dict[str, Any]]:
    """Return the agents' records, with their ids and tokens.

    The token is '' if no work of this world has the agent's task.
    """
    tokens = {work.task: token for token, work in world.works.items()}
    found = world.rows(
        "SELECT agent.*, common_dir, task FROM agent "
        "JOIN project ON project.number = agent.project JOIN task ON task.agent = agent.number"
    )
    return [{**row, "id": f"a{row['number']}", "token": tokens.get(row["task"], "")} for row in found]


_FINAL = ("succeeded", "failed", "stopped", "timed_out", "lost")


def _live(world: World) -> list[dict[str, Any]]:
    return [agent for agent in agents(world) if agent["state"] not in _FINAL]


def _open_merges(world: World) -> list[dict[str, Any]]:
    return world.rows("SELECT * FROM landing WHERE state <> 'done'")


def _stop_endless(world: World, live: list[dict[str, Any]]) -> None:
    for lead in _one_lead_for_each_repository(world):
        ids = [
            agent["id"]
            for agent in live
            if agent["common_dir"] == str(lead.where / ".git")
            and agent["id"] not in world.let_go
            and world.works[agent["token"]].expected.endless
        ]
        if ids:
            world.let_go.update(ids)
            world.stopped.update(ids)
            ask(world, lead, "stop_agents", {"ids": ids})


def _one_lead_for_each_repository(world: World) -> list[Lead]:
    return [next(lead for lead in world.leads if lead.where == person.folder) for person in world.people]


def _remove_again(world: World) -> None:
    """Repeat the removals that have no answer because their relays were killed.

    An interrupted removal must be able to continue.
    """
    interrupted = [
        (lead, call) for lead, call in world.every_call() if call.tool == "remove_worktrees" and not call.answers
    ]
    for lead, call in interrupted:
        current = next(other for other in world.leads if other.where == lead.where)
        for agent in call.arguments["ids"]:
            current.wait(ask(world, current, "remove_worktrees", {**call.arguments, "ids": [agent]}), GIVE_UP_S)
        call.answers.append({})  # so that the next round does not repeat the call


def _strays(world: World) -> list[str]:
    """Return all running processes except one daemon."""
    found = running(world)
    daemons = sum(process.is_daemon for process in found)
    return [str(process) for process in found if not process.is_daemon] + ["two daemons"] * (daemons > 1)
