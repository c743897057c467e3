"""Playing a history: a lead at the tools of a reconciler in this process, whose socket agents' programs reach."""

import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import psutil
from anyio import to_thread
from forkjoin.authentication import authenticate
from forkjoin.core import file_lock
from forkjoin.core.error import CallerError
from forkjoin.core.paths import Home, find_home
from forkjoin.core.session import Session
from forkjoin.reconciler import Reconciler
from forkjoin.transport import socket_server
from forkjoin_tools.mcp_server import serve_mcp
from support.harness import Lead, ToolRefusedError, forkjoin, lead_of, make_hello, open_lead, open_reconciler_in_memory

from adversary.actions import make_task
from adversary.ground import Ground
from adversary.plan import VERIFY, Operation, Plan
from adversary.standing import remove_pipes

#: Within this a call must be answered; the machine may be busy.
DEADLINE_S = 40.0

_FRESH = (
    "echo fresh > fresh.txt; git add -f fresh.txt; git -c user.name=T -c user.email=t@e commit -qm fresh; echo fresh"
)
#: What is said where an agent's forkjoin.toml has landed that nobody has trusted.
_ASKS_FOR_NONE = 'pass verify="" for none'


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of the lead's, and what came of it: an answer, or a refusal in words."""

    tool: str
    arguments: dict[str, Any]
    answer: Any = None
    refusal: str = ""

    @property
    def text(self) -> str:
        return self.refusal or (self.answer if isinstance(self.answer, str) else json.dumps(self.answer))


@dataclass
class Played:
    """What was done, as far as the check must know it."""

    ground: Ground
    plan: Plan
    answered: list[Answered] = field(default_factory=list[Answered])
    wrong: list[str] = field(default_factory=list[str])
    spawned: int = 0
    agents: list[str] = field(default_factory=list[str])  #: ids, in the order of the plan
    fresh: str = ""  #: why the agent that was spawned last did not land, if it did not
    other: str = ""  #: the same in the other repository
    targets: dict[str, str] = field(default_factory=dict[str, str])  #: where each branch must be, by what was answered
    commits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  #: on each, all that was answered
    branch: str = ""  #: that of the user's checkout, as a full ref
    hung: bool = False  #: whether a call had no answer in time, so that all was ended in its midst
    told: set[str] = field(default_factory=set[str])  #: agents that were told to go on
    unverified: set[str] = field(default_factory=set[str])  #: agents that landed without a verify


async def play(plan: Plan, ground: Ground, played: Played) -> None:
    """Play a history, and see that the repository, and another, are of use afterwards."""
    home = find_home()
    home.make()
    ground.trust()
    at = str(ground.lead_at)
    is_text = at == at.encode(errors="replace").decode()  # else no relay can be told of it
    operations = [one for one in plan.operations if one.kind != "kill" or is_text]
    while await _play_until_a_kill(operations, played, home) and not played.hung:
        await _play_killed(operations.pop(0), operations.pop(0), played, home)


async def _play_until_a_kill(operations: list[Operation], played: Played, home: Home) -> bool:
    """Play in this process what comes before the next kill, if there is one; else all, and see that all is of use."""
    ground = played.ground
    async with (
        open_reconciler_in_memory(home) as reconciler,
        _open_door(reconciler, home),
        lead_of(reconciler, ground.lead_at) as lead,
        lead_of(reconciler, ground.other, "session-2") as other,
    ):
        player = _Player(reconciler, lead, played)
        try:
            while operations and (operations[0].kind != "kill" or not operations[1:2]):
                await player.operate(operations.pop(0))
            if operations:
                return True
            await player.end()
            played.fresh = await player.land_fresh()
            played.other = await _Player(reconciler, other, played).land_fresh(ours=False)
        except _HangsError:
            played.hung = True
            await to_thread.run_sync(_end_hanging)
    return False


async def _play_killed(kill: Operation, operation: Operation, played: Played, home: Home) -> None:
    """Play an operation over a relay, with a daemon of its own that is killed meanwhile; the next one answers."""
    try:
        async with open_lead(played.ground.lead_at) as lead, anyio.create_task_group() as tasks:
            player = _Player(None, lead, played)
            await player.call("get_status")
            status = await to_thread.run_sync(forkjoin, played.ground.other, "daemon", "status")
            tasks.start_soon(player.operate, operation)
            await anyio.sleep(int(kill.options[0].removeprefix("at-")) / 1000)
            os.kill(int(status.stdout.partition("pid ")[2].partition(",")[0]), signal.SIGKILL)
    except* _HangsError:
        played.hung = True
    while file_lock.is_held(home.daemon_lock):
        await to_thread.run_sync(partial(forkjoin, played.ground.other, "daemon", "stop", "--now", check=False))


@asynccontextmanager
async def _open_door(reconciler: Reconciler, home: Home) -> AsyncGenerator[None]:
    """Let agents' programs connect to this process, as to a daemon."""
    async with socket_server.bind(home) as listener, anyio.create_task_group() as tasks:
        door = socket_server.SocketServer(
            partial(serve_mcp, reconciler),
            partial(authenticate, reconciler.services),
            reconciler.services.executor.find_owner,
        )
        tasks.start_soon(door.serve, listener, tasks)
        yield
        tasks.cancel_scope.cancel()


class _HangsError(Exception):
    """A call was not answered in time."""


def _end_hanging() -> None:
    """End what this process waits for: each git of it, with what that has started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.name() == "git":
                child.kill()


class _Player:
    def __init__(self, reconciler: Reconciler | None, lead: Lead, played: Played) -> None:
        self.reconciler, self.lead, self.played, self.ground = reconciler, lead, played, played.ground

    async def call(self, tool: str, **arguments: Any) -> Answered:
        """Call a tool, which must answer in time, or refuse in words."""
        began = time.monotonic()
        try:
            with anyio.fail_after(DEADLINE_S):
                answered = Answered(tool, arguments, await self.lead.call(tool, **arguments))
        except ToolRefusedError as error:
            answered = Answered(tool, arguments, refusal=str(error))
        except TimeoutError:
            self.played.wrong.append(f"{tool} {arguments} was not answered within {DEADLINE_S:.0f} s")
            raise _HangsError from None
        except Exception as error:
            self.played.wrong.append(f"{tool} {arguments}: {type(error).__name__}: {error}")
            answered = Answered(tool, arguments, refusal=f"no answer: {error}")
        self.played.answered.append(answered)
        self._note(f"{time.monotonic() - began:.2f} s {tool} {arguments}: {answered.text}"[:1500])
        if "not your fault" in answered.refusal:
            self.played.wrong.append(f"{tool} {arguments}: {answered.refusal[:500]}")
        return answered

    def _note(self, line: str) -> None:
        with (self.ground.folder / "trace").open("a", errors="replace") as file:
            file.write(line + "\n")

    async def operate(self, operation: Operation) -> None:
        self._note(f"-- {operation}")
        await self._greet()
        known = dict(enumerate(self.played.agents, 1))
        ids = [known[number] for number in operation.agents if number in known]
        match operation.kind:
            case "spawn":
                await self._spawn(operation)
            case "wait":
                await self._wait()
            case "review":
                await self._review()
            case "merge" if ids:
                await self._merge(ids, operation.options)
            case "undo":
                await self._undo(operation.options)
            case "remove" if ids:
                await self.call("remove_worktrees", ids=ids, discard_unmerged="discard" in operation.options)
            case "stop" if ids:
                await self.call("stop_agents", ids=ids)
            case "tell" if ids:
                self.played.told.update(ids)
                await self.call("message_agent", id=ids[0], text=f"echo more > more-{ids[0]}.txt")
                await self._wait()
            case "commit" | "gc":
                await to_thread.run_sync(self._act_as_user, operation.kind)
            case _:
                pass

    async def _greet(self) -> None:
        """Connect as the daemon lets in a relay or a command line: that has no error but in words."""
        if self.reconciler is None:
            return
        for kind in ("relay", "cli"):
            hello = make_hello(f"greeting-{kind}", kind=kind, cwd=str(self.ground.lead_at), session_id="session-1")
            try:
                with anyio.fail_after(DEADLINE_S):
                    await authenticate(self.reconciler.services, Session(hello))
            except CallerError:
                pass
            except TimeoutError:
                self.played.wrong.append(f"a connection was not let in within {DEADLINE_S:.0f} s")
                raise _HangsError from None
            except Exception as error:
                self.played.wrong.append(f"a connection failed: {type(error).__name__}: {error}")

    async def _spawn(self, operation: Operation) -> None:
        ground, tokens = self.ground, [f"t{self.played.spawned + n}" for n in range(1, len(operation.spawns) + 1)]
        self.played.spawned += len(tokens)
        paths = (str(ground.log), str(ground.canary), str(ground.outside))
        tasks = [make_task(token, [*acts], *paths) for token, acts in zip(tokens, operation.spawns, strict=True)]
        specs = [{"task": task, "name": f"n-{token}"} for task, token in zip(tasks, tokens, strict=True)]
        answered = await self.call("spawn_agents", agents=specs)
        self.played.agents += [one["id"] for one in answered.answer["agents"]] if answered.answer else []

    async def _wait(self) -> None:
        if self.played.agents:
            waits = [one for one in self.played.agents if self._never_ends(one)]
            rest = [one for one in self.played.agents if one not in waits]
            answered = await self.call("wait_agents", ids=rest, timeout_s=DEADLINE_S - 10) if rest else None
            pending: list[dict[str, str]] = answered.answer["pending"] if answered and answered.answer else []
            # At another agent's pipe an agent's own git waits, too.
            if late := [one for one in pending if one["state"] != "running" or "a pipe" not in str(self.played.plan)]:
                self.played.wrong.append(f"agents do not end: {late}")

    def _never_ends(self, agent: str) -> bool:
        spawns = [actions for one in self.played.plan.operations for actions in one.spawns]
        return "waits" in spawns[self.played.agents.index(agent)]

    async def _review(self) -> None:
        await self.call("get_status")
        await self.call("check_conflicts")
        for one in self.played.agents[-3:]:
            await self.call("get_result", id=one)
            await self.call("read_diff", id=one)
            await self.call("read_log", id=one)

    async def _merge(self, ids: list[str], options: tuple[str, ...]) -> None:
        said: dict[str, Any] = {"into": "release"} if "release" in options else {}
        said |= {"verify": VERIFY} if "verify" in options else {}
        said |= {"strategy": "squash"} if "squash" in options else {}
        said |= {"include_failed": True} if "failed" in options else {}
        said |= {"dry_run": True} if "dry" in options else {}
        answered = await self.call("merge_worktree", ids=ids, **said)
        if answered.answer and not said.get("dry_run"):
            self._note_moved(answered.answer)
            if not said.get("verify") and not self.ground.verify:
                self.played.unverified.update(one["id"] for one in answered.answer["merged"])

    def _note_moved(self, answer: Any) -> None:
        target = f"refs/heads/{answer['target']}"
        commits = [one["commit"] for one in answer.get("merged", ())] or [answer["commit"]]
        if answer["commit"] and (answer.get("merged") or answer.get("undone")):
            self.played.commits.setdefault(target, set()).update(filter(None, commits))
            self.played.targets[target] = answer["commit"]

    async def _undo(self, options: tuple[str, ...]) -> None:
        answered = await self.call("undo_merge", **({"into": "release"} if "release" in options else {}))
        if answered.answer:
            self._note_moved(answered.answer)

    def _act_as_user(self, what: str) -> None:
        """Commit a file of the user's, or collect garbage, where git can: nobody else is at work."""
        ground = self.ground
        with suppress(Exception):
            if what == "gc":
                ground.ask("gc", "-q", "--prune=now")
                return
            before, branch = ground.ask("rev-parse", "HEAD"), ground.ask("symbolic-ref", "HEAD")  # else not at all
            name = f"user-{time.monotonic_ns()}.txt"
            ground.write(ground.repository, {name: "the user's\n"})
            try:
                ground.ask("add", name)
                ground.ask("commit", "-qm", "of the user", "--only", "--", name)
            except (AssertionError, subprocess.TimeoutExpired):  # such as at a lock, or a pipe
                (ground.repository / name).unlink()
                ground.ask("update-index", "--force-remove", "--", name)  # reads no commit, and so no `shallow`
                raise
            now = ground.ask("rev-parse", "HEAD")
            if self.played.targets.get(branch, before) == before:
                self.played.targets[branch] = now
                self.played.commits.setdefault(branch, set()).add(now)

    async def end(self) -> None:
        """Stop what never ends. Where that is refused, a person makes the repository readable again."""
        if self.played.agents:
            answered = await self.call("stop_agents", ids=self.played.agents)
            if answered.refusal:
                self.played.wrong.append(f"agents can't be stopped: {answered.refusal[:300]}")
                await to_thread.run_sync(remove_pipes, self.ground.common)
                await self.call("stop_agents", ids=self.played.agents)

    async def land_fresh(self, *, ours: bool = True) -> str:
        """Land the work of another agent. Return why that is not possible, if it is not."""
        await self._greet()
        spawned = await self.call("spawn_agents", agents=[{"task": _FRESH}])
        if _ASKS_FOR_NONE in spawned.refusal:
            spawned = await self.call("spawn_agents", agents=[{"task": _FRESH, "verify": ""}])
        if not spawned.answer:
            return spawned.refusal
        agent = spawned.answer["agents"][0]["id"]
        await self.call("wait_agents", ids=[agent], timeout_s=DEADLINE_S - 10)
        await self.call("get_result", id=agent)
        merged = await self.call("merge_worktree", ids=[agent], into="main")
        if _ASKS_FOR_NONE in merged.refusal:
            merged = await self.call("merge_worktree", ids=[agent], into="main", verify="")
        if merged.answer and ours:
            self._note_moved(merged.answer)
        return "" if merged.answer and merged.answer["merged"] else merged.text
