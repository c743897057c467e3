"""Playing a history: a lead calls a reconciler in this process, and agents' programs connect to its socket."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
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
from support.daemon_in_process import accept_connections
from support.harness import Lead, ToolRefusedError, forkjoin, lead_of, make_hello, open_lead, open_reconciler_in_memory

from adversary.actions import make_task
from adversary.plan import VERIFY, Operation, Plan
from adversary.sandbox import Sandbox
from adversary.snapshot import remove_pipes

#: Seconds within which a call must be answered. The limit is generous, because the machine may be busy.
DEADLINE_S = 40.0

_FRESH = (
    "echo fresh > fresh.txt; git add -f fresh.txt; git -c user.name=T -c user.email=t@e commit -qm fresh; echo fresh"
)
#: Part of the error if the repository's forkjoin.toml, changed by a merged agent, is not trusted.
_ASKS_FOR_NONE = 'pass verify="" for none'


@dataclass(frozen=True, slots=True)
class Answered:
    """A call of the lead with its answer, or with the text of its error."""

    tool: str
    arguments: dict[str, Any]
    answer: Any = None
    refusal: str = ""

    @property
    def text(self) -> str:
        return self.refusal or (self.answer if isinstance(self.answer, str) else json.dumps(self.answer))


@dataclass
class Played:
    """The record of a played history, for the check of the invariants."""

    sandbox: Sandbox
    plan: Plan
    answered: list[Answered] = field(default_factory=list[Answered])
    wrong: list[str] = field(default_factory=list[str])
    spawned: int = 0
    agents: list[str] = field(default_factory=list[str])  #: ids, in the order of the plan
    fresh: str = ""  #: why a new agent's work could not be merged at the end, or ''
    other: str = ""  #: the same for the other repository
    targets: dict[str, str] = field(default_factory=dict[str, str])  #: each target's commit by the last answer
    commits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  #: each target's commits by all answers
    branch: str = ""  #: the full ref of the user's branch
    hung: bool = False  #: whether a call was not answered in time, so that the history was cut short
    messaged: set[str] = field(default_factory=set[str])  #: ids of agents that were sent a message
    unverified: set[str] = field(default_factory=set[str])  #: ids of agents that were merged without a verify


async def play(plan: Plan, sandbox: Sandbox, played: Played) -> None:
    """Play a history, then try whether both repositories are still usable."""
    home = find_home()
    home.make()
    sandbox.trust()
    at = str(sandbox.lead_at)
    is_text = at == at.encode(errors="replace").decode()  # a relay can't send any other path
    operations = [one for one in plan.operations if one.kind != "kill" or is_text]
    while await _play_until_a_kill(operations, played, home) and not played.hung:
        await _play_killed(operations.pop(0), operations.pop(0), played, home)


async def _play_until_a_kill(operations: list[Operation], played: Played, home: Home) -> bool:
    """Play the operations before the next kill in this process.

    Return whether there is a kill.

    If there is none, play all operations, then try whether both repositories are still usable.
    """
    sandbox = played.sandbox
    async with (
        open_reconciler_in_memory(home) as reconciler,
        accept_connections(reconciler, home, reconciler.services.executor.find_owner),
        lead_of(reconciler, sandbox.lead_at) as lead,
        lead_of(reconciler, sandbox.other, "session-2") as other,
    ):
        player = _Player(reconciler, lead, played)
        try:
            while operations and (operations[0].kind != "kill" or not operations[1:2]):
                await player.operate(operations.pop(0))
            if operations:
                return True
            await player.end()
            played.fresh = await player.merge_new_agent()
            played.other = await _Player(reconciler, other, played).merge_new_agent(ours=False)
        except _HangsError:
            played.hung = True
            await to_thread.run_sync(_kill_git)
    return False


async def _play_killed(kill: Operation, operation: Operation, played: Played, home: Home) -> None:
    """Play an operation through a relay, and kill the daemon during the operation.

    The next daemon answers.
    """
    try:
        async with open_lead(played.sandbox.lead_at) as lead, anyio.create_task_group() as tasks:
            player = _Player(None, lead, played)
            await player.call("get_status")
            status = await to_thread.run_sync(forkjoin, played.sandbox.other, "daemon", "status")
            tasks.start_soon(player.operate, operation)
            await anyio.sleep(int(kill.options[0].removeprefix("at-")) / 1000)
            os.kill(int(status.stdout.partition("pid ")[2].partition(",")[0]), signal.SIGKILL)
    except* _HangsError:
        played.hung = True
    while file_lock.is_held(home.daemon_lock):
        await to_thread.run_sync(partial(forkjoin, played.sandbox.other, "daemon", "stop", "--now", check=False))


class _HangsError(Exception):
    """A call was not answered in time."""


def _kill_git() -> None:
    """Kill all git processes below this process, because it waits for one of them."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.name() == "git":
                child.kill()


class _Player:
    """A lead that carries out a plan's operations. Without a reconciler, it uses a relay and a daemon."""

    def __init__(self, reconciler: Reconciler | None, lead: Lead, played: Played) -> None:
        self.reconciler, self.lead, self.played, self.sandbox = reconciler, lead, played, played.sandbox

    async def call(self, tool: str, **arguments: Any) -> Answered:
        """Call a tool, and record its answer or error.

        Raises:
            _HangsError: The call was not answered in time.
        """
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
            answered = Answered(tool, arguments, refusal=f"unexpected error: {error}")
        self.played.answered.append(answered)
        self._note(f"{time.monotonic() - began:.2f} s {tool} {arguments}: {answered.text}"[:1500])
        if "not your fault" in answered.refusal:
            self.played.wrong.append(f"{tool} {arguments}: {answered.refusal[:500]}")
        return answered

    def _note(self, line: str) -> None:
        with (self.sandbox.folder / "trace").open("a", errors="replace") as file:
            file.write(line + "\n")

    async def operate(self, operation: Operation) -> None:
        self._note(f"-- {operation}")
        await self._authenticate()
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
                self.played.messaged.update(ids)
                await self.call("message_agent", id=ids[0], text=f"echo more > more-{ids[0]}.txt")
                await self._wait()
            case "commit" | "gc":
                await to_thread.run_sync(self._act_as_user, operation.kind)
            case _:
                pass

    async def _authenticate(self) -> None:
        """Authenticate a relay and a command line.

        This must succeed or fail with a `CallerError`.
        """
        if self.reconciler is None:
            return
        for kind in ("relay", "cli"):
            hello = make_hello(f"greeting-{kind}", kind=kind, cwd=str(self.sandbox.lead_at), session_id="session-1")
            try:
                with anyio.fail_after(DEADLINE_S):
                    await authenticate(self.reconciler.services, Session(hello))
            except CallerError:
                pass
            except TimeoutError:
                self.played.wrong.append(f"a connection was not authenticated within {DEADLINE_S:.0f} s")
                raise _HangsError from None
            except Exception as error:
                self.played.wrong.append(f"a connection failed: {type(error).__name__}: {error}")

    async def _spawn(self, operation: Operation) -> None:
        sandbox, tokens = self.sandbox, [f"t{self.played.spawned + n}" for n in range(1, len(operation.spawns) + 1)]
        self.played.spawned += len(tokens)
        paths = (str(sandbox.log), str(sandbox.canary), str(sandbox.outside))
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
            # A pipe that another agent has made may block an agent's own git.
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
        arguments: dict[str, Any] = {"into": "release"} if "release" in options else {}
        arguments |= {"verify": VERIFY} if "verify" in options else {}
        arguments |= {"strategy": "squash"} if "squash" in options else {}
        arguments |= {"include_failed": True} if "failed" in options else {}
        arguments |= {"dry_run": True} if "dry" in options else {}
        answered = await self.call("merge_worktree", ids=ids, **arguments)
        if answered.answer and not arguments.get("dry_run"):
            self._note_moved(answered.answer)
            if not arguments.get("verify") and not self.sandbox.verify:
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
        """Commit a file as the user, or run git gc.

        Ignore errors, which agents' actions may cause.
        """
        sandbox = self.sandbox
        with suppress(Exception):
            if what == "gc":
                sandbox.ask("gc", "-q", "--prune=now")
                return
            before, branch = (
                sandbox.ask("rev-parse", "HEAD"),
                sandbox.ask("symbolic-ref", "HEAD"),
            )  # fails before any change if HEAD is unreadable
            name = f"user-{time.monotonic_ns()}.txt"
            sandbox.write(sandbox.repository, {name: "the user's\n"})
            try:
                sandbox.ask("add", name)
                sandbox.ask("commit", "-qm", "of the user", "--only", "--", name)
            except (AssertionError, subprocess.TimeoutExpired):  # e.g. because of a lock or a pipe
                (sandbox.repository / name).unlink()
                sandbox.ask("update-index", "--force-remove", "--", name)  # needs no commit, so `shallow` is not read
                raise
            now = sandbox.ask("rev-parse", "HEAD")
            if self.played.targets.get(branch, before) == before:
                self.played.targets[branch] = now
                self.played.commits.setdefault(branch, set()).add(now)

    async def end(self) -> None:
        """Stop all agents.

        If that fails, remove the pipes in the repository, as a person would, and try again.
        """
        if self.played.agents:
            answered = await self.call("stop_agents", ids=self.played.agents)
            if answered.refusal:
                self.played.wrong.append(f"agents can't be stopped: {answered.refusal[:300]}")
                await to_thread.run_sync(remove_pipes, self.sandbox.common)
                await self.call("stop_agents", ids=self.played.agents)

    async def merge_new_agent(self, *, ours: bool = True) -> str:
        """Spawn another agent and merge its work. Return why that failed, or ''."""
        await self._authenticate()
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
