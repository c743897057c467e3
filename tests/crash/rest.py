"""Bringing a world to rest: everything that was asked is answered or its relay dead, and nothing is under way."""

from typing import Any

from crash.kill import running
from crash.lead import Lead
from crash.operation import ask
from crash.world import GIVE_UP_S, World, WrongError


def bring_to_rest(world: World) -> None:
    """Stop what never ends by itself, and wait for all else.

    Raises:
        WrongError: Something never came to its end.
    """
    for lead in world.leads:
        if lead.killed:
            world.reopen(lead)
    world.until(lambda: _is_quiet(world), "all were at rest:", lambda: _unrest(world))
    for command in world.commands:
        command.wait(GIVE_UP_S)
    world.commands.clear()
    _remove_again(world)
    for person in world.people:
        world.until(lambda: not person.owes_commit or person.commit(), "a person could commit")  # noqa: B023
    world.until(lambda: _strays(world) == [], "no process was left:", lambda: _strays(world))


def _is_quiet(world: World) -> bool:
    for lead in world.leads:
        if not lead.is_there:
            raise WrongError(f"the relay of {lead.name} left by itself, with exit code {lead.process.wait()}")
    live = _live(world)
    _stop_endless(world, live)
    waiting = any(lead.unanswered for lead in world.leads) or any(one.poll() is None for one in world.commands)
    return not (live or waiting or _open_landings(world))


def _unrest(world: World) -> str:
    """What is still under way, in words."""
    calls = [f"{lead.name} {call}" for lead in world.leads for call in lead.unanswered]
    agents = [f"{agent['id']} {agent['state']}" for agent in _live(world)]
    return f"{calls}, {agents}, {len(_open_landings(world))} landings"


def agents(world: World) -> list[dict[str, Any]]:
    """The records' agents, each with its id, and its token, or '' where nobody here has spawned it."""
    tokens = {work.task: token for token, work in world.works.items()}
    found = world.rows(
        "SELECT agent.*, common_dir, task FROM agent "
        "JOIN project ON project.number = agent.project JOIN task ON task.agent = agent.number"
    )
    return [{**row, "id": f"a{row['number']}", "token": tokens.get(row["task"], "")} for row in found]


_FINAL = ("succeeded", "failed", "stopped", "timed_out", "lost")


def _live(world: World) -> list[dict[str, Any]]:
    return [agent for agent in agents(world) if agent["state"] not in _FINAL]


def _open_landings(world: World) -> list[dict[str, Any]]:
    return world.rows("SELECT * FROM landing WHERE state <> 'done'")


def _stop_endless(world: World, live: list[dict[str, Any]]) -> None:
    for lead in _one_in_each(world):
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


def _one_in_each(world: World) -> list[Lead]:
    return [next(lead for lead in world.leads if lead.where == person.folder) for person in world.people]


def _remove_again(world: World) -> None:
    """Ask again for removals that had no answer when their relay was killed: cut off, they must be able to go on."""
    asked = [(lead, call) for lead, call in world.every_call() if call.tool == "remove_worktrees" and not call.answers]
    for lead, call in asked:
        again = next(one for one in world.leads if one.where == lead.where)
        for one in call.arguments["ids"]:
            again.wait(ask(world, again, "remove_worktrees", {**call.arguments, "ids": [one]}), GIVE_UP_S)
        call.answers.append({})  # it will not be asked once more


def _strays(world: World) -> list[str]:
    """What runs beside one daemon."""
    found = running(world)
    return [str(one) for one in found if not one.is_daemon] + ["two daemons"] * (
        sum(one.is_daemon for one in found) > 1
    )
