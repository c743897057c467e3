"""The random operations of leads and people. Each is a function that does not wait for answers."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from crash import kill
from crash.lead import Call, Lead
from crash.world import World


def some_ids(world: World, lead: Lead, most: int) -> list[str]:
    """Return random ids among the 20 newest agents of the lead's project."""
    known = sorted(set(world.known(lead.where)), key=lambda agent: int(agent[1:]))[-20:]
    return world.random.sample(known, min(len(known), world.random.randint(1, most)))


def ask(world: World, lead: Lead, tool: str, arguments: dict[str, Any], tokens: tuple[str, ...] = ()) -> Call:
    call = lead.send(tool, arguments, tokens)
    world.note(f"{lead.name} {call} {json.dumps(arguments) if not tokens else ' '.join(tokens)}")
    world.counts["calls"] += 1
    return call


# -- operations of a lead


def spawn(world: World) -> None:
    works = [world.new_work() for _ in range(world.random.randint(1, 6))]
    named = [work.spec(f"n-{work.token}" if world.random.random() < 0.5 else None) for work in works]
    for spec in named:
        others = [
            str(other["name"])
            for other, work in zip(named, works, strict=True)
            if other is not spec and "name" in other and "after" not in other and not work.expected.listens
        ]
        if others and world.random.random() < 0.2:
            spec["after"] = [world.random.choice(others)]
    for work, spec in zip(works, named, strict=True):
        world.note(f"{work.token} {spec.get('name', 'without a name')}: {work.kind}, after {spec.get('after', 'none')}")
    ask(world, world.a_lead(), "spawn_agents", {"agents": named}, tuple(work.token for work in works))


def wait(world: World) -> None:
    lead = world.a_lead()
    until, timeout_s = world.random.choice(("all", "any")), world.random.choice((0, 0.2, 2))
    ids = {"ids": found} if world.random.random() < 0.5 and (found := some_ids(world, lead, 5)) else {}
    ask(world, lead, "wait_agents", {"until": until, "timeout_s": timeout_s, **ids})


def look(world: World) -> None:
    lead = world.a_lead()
    found = some_ids(world, lead, 1)
    tool = world.random.choice(("list_agents", "get_status", "get_result", "read_log", "read_diff"))
    if tool in ("list_agents", "get_status"):
        ask(world, lead, tool, {})
    elif found:
        ask(world, lead, tool, {"id": found[0]})


def merge(world: World) -> None:
    lead = world.a_lead()
    into = world.random.choice((None, None, "release"))
    verify = world.random.choice((None, None, None, "test -f README.md", 'test "$FORKJOIN_AGENT" != a1', "false"))
    options = {"into": into, "verify": verify, "dry_run": True if world.random.random() < 0.1 else None}
    if ids := some_ids(world, lead, 4):
        ask(world, lead, "merge_worktree", {"ids": ids, **{name: value for name, value in options.items() if value}})


def tell(world: World) -> None:
    lead = world.a_lead()
    if listening := world.listening(lead.where):
        agent, token = world.random.choice(listening)
        word = f"heard-{len(world.messages) + 1}"
        world.messages[word] = token, ask(world, lead, "message_agent", {"id": agent, "text": f"say {word}"})


def stop(world: World) -> None:
    lead = world.a_lead()
    if ids := some_ids(world, lead, 2):
        world.stopped.update(ids)
        ask(world, lead, "stop_agents", {"ids": ids})


def remove(world: World) -> None:
    lead = world.a_lead()
    if ids := some_ids(world, lead, 3):
        discard = world.random.random() < 0.5
        ask(world, lead, "remove_worktrees", {"ids": ids, "discard_unmerged": discard})


def ask_again(world: World) -> None:
    """Send a request again, like a client that lost its connection before the answer."""
    lead = world.a_lead()
    calls = (call for call in lead.calls.values() if call.is_answered)  # JSON-RPC forbids two open requests with one id
    again = [call for call in calls if call.tool in ("spawn_agents", "merge_worktree") and call.content]
    if again:
        call = world.random.choice(again)
        world.note(f"{lead.name} {call} again")
        lead.send_again(call)


# -- operations of a person


def commit(world: World) -> None:
    person = world.random.choice(world.people)
    world.note(f"a person commits in {person.folder.name}: {person.commit()}")


def collect_garbage(world: World) -> None:
    person = world.random.choice(world.people)
    done = person.run("git", "gc", "--quiet")
    world.note(f"gc in {person.folder.name}: {done.stderr.strip()}")


def type_command(world: World) -> None:
    """Run a command of forkjoin in a terminal of its own."""
    lead = world.a_lead()
    ids = some_ids(world, lead, 2)
    commands = [["ps", "--json"], ["status"], ["wait", "--timeout", "0"]]
    if ids:
        commands += [["merge", *ids], ["stop", *ids], ["logs", ids[0]], ["result", ids[0]]]
    command = world.random.choice(commands)
    if command[0] == "stop":
        world.stopped.update(ids)
    world.note(f"a person in {lead.where.name} types: {' '.join(command)}")
    world.counts["commands"] += 1
    with (world.folder / "typed").open("ab") as output:
        argv = [sys.executable, "-m", "forkjoin", *command]
        world.commands.append(
            subprocess.Popen(
                argv, cwd=lead.where, env=world.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        )


def let_pass(world: World) -> None:
    """Wait a moment, so that kills happen at every stage of the other operations."""
    time.sleep(world.random.random() * 0.3)


def let_daemon_fall(world: World) -> None:
    """Start a daemon that kills itself at a step, and run an operation with this step."""
    operations = {"set_landing": merge, "Lifecycle.begin_removal": remove, "set_removed": remove, "Messages.add": tell}
    operations.get(kill.let_daemon_fall(world), spawn)(world)


#: All operations, with the relative frequency of each.
OPERATIONS: dict[Callable[[World], None], int] = {
    spawn: 6,
    wait: 3,
    look: 4,
    merge: 5,
    tell: 6,
    stop: 2,
    remove: 3,
    ask_again: 2,
    commit: 2,
    collect_garbage: 1,
    type_command: 1,
    let_pass: 8,
    kill.kill_daemon: 1,
    let_daemon_fall: 2,
    kill.kill_relay: 1,
    kill.kill_shim: 1,
    kill.kill_program: 1,
}
#: The number of operations in a round.
COUNT = 25


def operate(world: World) -> None:
    """Run the operations of a round."""
    for chosen in world.random.choices(list(OPERATIONS), list(OPERATIONS.values()), k=COUNT):
        chosen(world)
