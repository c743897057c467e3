"""The invariants after a history. Each private function checks one, and yields a sentence for each violation."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adversary.play import Played
from adversary.reachable_files import ReachableFiles
from adversary.sandbox import PLAIN, Sandbox
from adversary.snapshot import Shared, Snapshot, take_snapshot

#: Git's lock files must not be left behind. forkjoin's lock file is permanent.
_LOCKS, _OURS = "*.lock", "forkjoin.lock"
#: Files that git considers modified in the state `line ends`, until an agent commits them with normalized line ends.
_NORMALISED = {" M crlf.txt", " M more.txt"}
#: Shared configuration that determines how git writes files.
_FORMS = frozenset({"core.autocrlf", "core.fileMode", "info/attributes", "core.attributesFile"})


@dataclass(frozen=True)
class AgentLog:
    """The lines that agents' scripts logged (see `adversary.actions`)."""

    work: list[tuple[str, str]]  #: tokens and numbers of files
    stashed: list[tuple[str, str]]  #: files that only the stash has, which all worktrees share
    moved: dict[str, str]  #: for each ref, the token of the agent that moved the ref
    set: list[tuple[str, str]]  #: tokens and names of shared configuration
    tokens: list[str]
    peeked: list[str]
    blocks: bool
    locked: bool

    @classmethod
    def read(cls, file: Path) -> "AgentLog":
        lines = [line.split(" ") for line in file.read_text(errors="replace").splitlines()]
        return cls(
            work=[(line[1], line[2]) for line in lines if line[0] == "work"],
            stashed=[(line[1], line[2]) for line in lines if line[0] == "stashed"],
            moved={line[2]: line[1] for line in lines if line[0] == "moved"},
            set=[(line[1], line[2]) for line in lines if line[0] == "set"],
            tokens=[line[1] for line in lines if line[0] == "token" and line[1]],
            peeked=[" ".join(line[1:]) for line in lines if line[0] == "peeked"],
            blocks=any(line[0] == "blocks" for line in lines),
            locked=any(line[0] == "locked" for line in lines),
        )


@dataclass(frozen=True)
class Seen:
    """A history at its end."""

    sandbox: Sandbox
    played: Played
    log: AgentLog
    before: Snapshot
    after: Snapshot
    agents: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    changed: list[str]  #: names of shared configuration that differs from before

    @property
    def warnings(self) -> str:
        """The warnings in all agents' results."""
        return "\n".join(warning for result in self.results.values() for warning in result["warnings"])

    def warnings_of(self, ref: str) -> list[str]:
        """Return the warnings in the result of the agent with this branch."""
        owner = [f"a{row['number']}" for row in self.agents if f"refs/heads/{row['branch']}" == ref]
        return [warning for id_ in owner for warning in self.results.get(id_, {"warnings": []})["warnings"]]


def check(sandbox: Sandbox, played: Played, before: Snapshot, shared: Shared) -> list[str]:
    """Return a sentence for each violation of an invariant."""
    changed = shared.put_back()
    agents = _rows(sandbox, "SELECT agent.*, common_dir FROM agent JOIN project ON project.number = agent.project")
    results = {f"a{row['agent']}": json.loads(row["result"]) for row in _rows(sandbox, "SELECT * FROM result")}
    seen = Seen(sandbox, played, AgentLog.read(sandbox.log), before, take_snapshot(sandbox), agents, results, changed)
    questions = (_answers, _use, _executed, _around, _work, _refs, _targets, _checkout, _mentions, _identity, _tidiness)
    return [*dict.fromkeys(played.wrong)] + [
        f"{question.__name__[1:]}: {wrong}" for question in questions for wrong in question(seen)
    ]


def _rows(sandbox: Sandbox, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(sandbox.home / "records.sqlite")) as found:
        found.row_factory = sqlite3.Row
        return [dict(row) for row in found.execute(query)]


def _answers(seen: Seen) -> Iterator[str]:
    """Check that no answer has an agent's token or a <system-reminder> tag."""
    for call in seen.played.answered:
        if "<system-reminder>" in call.text:
            yield f"an answer of {call.tool} has <system-reminder>"
        if any(token in call.text for token in seen.log.tokens):
            yield f"an answer of {call.tool} has an agent's token"


def _use(seen: Seen) -> Iterator[str]:
    """Check that both repositories are still usable.

    The user's repository may be unusable if an agent's action or a state prevents merges.
    """
    if seen.played.other:
        yield f"in the other repository an agent's work can't be merged: {seen.played.other[:500]}"
    if seen.played.fresh and not (seen.sandbox.blocks or seen.log.blocks):
        yield f"an agent's work can't be merged any more: {seen.played.fresh[:500]}"


def _executed(seen: Seen) -> Iterator[str]:
    for line in seen.sandbox.ran.read_text().splitlines():
        yield f"forkjoin has run {line}"


def _around(seen: Seen) -> Iterator[str]:
    """Check that no file outside the repository and forkjoin's home has changed."""
    for name in seen.before.around.keys() | seen.after.around.keys():
        if (now := seen.after.around.get(name)) != (was := seen.before.around.get(name)):
            yield f"{name} is {now}, not {was}"


def _work(seen: Seen) -> Iterator[str]:
    """Check that all work of agents is kept."""
    reachable = ReachableFiles(seen.sandbox)
    for token, number in seen.log.work:
        agent, text = _agent(token), f"work {number} of {token}\n".encode()
        if reachable.has(text):
            continue
        is_taken = any(ref.startswith("refs/heads/forkjoin/") for ref in seen.log.moved)  # by another agent
        leaves = any(action in str(seen.played.plan) for action in ("detaches", "expires reflogs"))
        if (token, number) in seen.log.stashed and "expires reflogs" in str(seen.played.plan):
            continue  # an agent has deleted the reflog that holds all agents' stashes
        if (is_taken or leaves) and reachable.has_object(text):
            continue  # the agent itself left its commit for another branch, or an agent deleted the reflogs
        yield f"{agent}'s work {number} is lost"


def _agent(token: str) -> str:
    return f"a{token.removeprefix('t')}"


def _refs(seen: Seen) -> Iterator[str]:
    """Check that only agents have moved other refs, and that results report it.

    Agents' branches, targets and kept work are not checked here.
    """
    branches = {f"refs/heads/{agent['branch']}" for agent in seen.agents}
    before, after = seen.before.refs, seen.after.refs
    for ref in sorted(before.keys() | after.keys()):
        is_ours = ref in branches or ref.startswith("refs/forkjoin/kept/") or ref in seen.played.targets
        if before.get(ref) != after.get(ref) and not is_ours and ref not in seen.log.moved:
            if ref == "refs/forkjoin/stream" and "plants a stream" in str(seen.played.plan):
                continue
            yield f"{ref} is {after.get(ref)}, not {before.get(ref)}"
    for ref, token in seen.log.moved.items():
        name = ref.removeprefix("refs/heads/")
        # An agent that was sent a message has a later result, which reports only later changes.
        is_reported = name in seen.warnings or _agent(token) in seen.played.messaged
        is_reported = is_reported or any(
            "s branch was " in warning or "was moved from" in warning or "was deleted at" in warning
            for warning in seen.warnings_of(ref)
        )
        own = seen.results.get(_agent(token), {"warnings": []})["warnings"]
        # git was blocked at a pipe
        is_reported = is_reported or any("can't tell whether other branches changed" in warning for warning in own)
        # a merge reported the missing branch
        is_reported = is_reported or any("its branch is gone" in call.text for call in seen.played.answered)
        if ref.startswith("refs/heads/") and before.get(ref) != after.get(ref) and not is_reported:
            yield f"{token} has moved {ref}, but no result reports that"


def _targets(seen: Seen) -> Iterator[str]:
    """Check that targets are where answers say, and have only the commits of answers."""
    for target, commit in seen.played.targets.items():
        if target in seen.log.moved:
            continue
        now = seen.after.refs.get(target, "")
        if now != commit and seen.before.refs.get(target) != seen.after.refs.get(target):
            yield f"{target} is at {now}, but the last answer named {commit}"
        chain = seen.sandbox.ask("rev-list", "--first-parent", f"{seen.before.refs[target]}..{now}", check=False)
        if strange := set(chain.split()) - seen.played.commits[target]:
            yield f"{target} has commits that no answer names: {strange}"
    yield from _reviewed(seen)
    yield from _broken(seen)
    yield from _sound(seen)


def _reviewed(seen: Seen) -> Iterator[str]:
    """Check that the merged commits are those that agents' results name."""
    for call in seen.played.answered:
        if call.tool != "merge_worktree" or not call.answer or call.arguments.keys() & {"strategy", "dry_run"}:
            continue
        for one in call.answer["merged"]:
            if one["id"] in seen.results and one["id"] not in seen.played.messaged and call.answer["target"] != "trunk":
                merged = seen.sandbox.ask("rev-parse", "-q", "--verify", f"{one['commit']}^2", check=False)
                if merged not in ("", named := seen.results[one["id"]]["commit"]):
                    yield f"{one['id']} was merged at {merged}, but its result names {named}"


def _broken(seen: Seen) -> Iterator[str]:
    """Check that files that break verify were merged only without a verify."""
    for target in seen.played.targets:
        for name in seen.sandbox.ask("ls-tree", "--name-only", target, check=False).splitlines():
            if name.startswith("broken-t") and _agent(name.split("-")[1]) not in seen.played.unverified:
                yield f"{target} has {name}, which breaks its verify"


def _sound(seen: Seen) -> Iterator[str]:
    """Check that git with strict checks can fetch the targets and check them out."""
    targets = [target for target in seen.played.targets if target not in seen.log.moved]
    if not targets or {"partial", "grafts"} & {*seen.played.plan.states}:
        return  # git can't fetch from such repositories
    clone = seen.sandbox.folder / "clone"
    form = seen.sandbox.ask("rev-parse", "--show-object-format")
    seen.sandbox.run(seen.sandbox.folder, "init", "-q", f"--object-format={form}", str(clone))
    fetched = ("fetch", "-q", str(seen.sandbox.common), *(f"+{one}:refs/heads/x/{one[11:]}" for one in targets))
    try:
        seen.sandbox.run(clone, "-c", "fetch.fsckObjects=true", *fetched, "--update-shallow", extra=PLAIN)
        for target in targets:
            seen.sandbox.run(clone, "-c", "filter.rot.required=false", "checkout", "-q", "--detach", f"x/{target[11:]}")
        if output := seen.sandbox.run(clone, "fsck", "--strict", "--no-dangling", "--no-progress"):
            yield f"git fsck --strict: {output}"
    except AssertionError as error:
        yield f"a clone of {targets} can't be made: {str(error)[-400:]}"


def _checkout(seen: Seen) -> Iterator[str]:
    """Check that only merged work has changed the checkout, index, stash and HEAD."""
    before, after = seen.before, seen.after
    if after.stash != before.stash and "refs/stash" not in seen.log.moved:
        yield f"the stash is {after.stash!r}, not {before.stash!r}"
    if after.branch != before.branch or (not before.branch and after.head != before.head):
        yield f"HEAD is {after.branch or after.head}, not {before.branch or before.head}"
    if before.branch in seen.log.moved or any(what in _FORMS for _, what in seen.log.set):
        return  # the files belong to another commit, or git would write them in another form
    if differences := (after.status ^ before.status) - _NORMALISED:
        yield f"git status differs in {sorted(differences)}"
    if after.staged != before.staged:
        yield f"the staged changes are {after.staged}, not {before.staged}"
    for entry in before.status & after.status:
        name = entry[3:]
        if before.files.get(name) != after.files.get(name):
            yield f"the user's file {name!r} is {after.files.get(name)}, not {before.files.get(name)}"


def _mentions(seen: Seen) -> Iterator[str]:
    """Check that only agents change shared configuration, and that results report it."""
    # With these states and actions git itself changes the configuration.
    usual = any(name in str(seen.played.plan) for name in ("sparse", "adds a submodule"))
    if seen.changed and not seen.log.set and not usual:
        yield f"the shared configuration has changed: {seen.changed}"
    warnings = seen.warnings.lower()
    for token, what in seen.log.set if seen.changed else ():
        if _agent(token) not in seen.played.messaged and not any(
            word in warnings for word in (what.lower(), what.lower().partition(".")[0], "config:", "hooks")
        ):
            yield f"{token} has set {what}, but no result reports that"


def _identity(seen: Seen) -> Iterator[str]:
    """Check that only the leads have spawned, merged, removed or set budgets."""
    expected = seen.played.spawned + 2
    if len(seen.agents) > expected:
        yield f"there are {len(seen.agents)} agents, but the leads spawned {expected}"
    for row in _rows(seen.sandbox, "SELECT * FROM landing"):
        if not row["lead"].startswith("session-"):
            yield f"a merge by {row['lead']}: {row['answer']}"
    for row in _rows(seen.sandbox, "SELECT * FROM budget WHERE limit_usd IS NOT NULL"):
        yield f"a budget that no lead has set: {row}"
    removed = {
        one["id"]
        for call in seen.played.answered
        if call.tool == "remove_worktrees" and call.answer
        for one in call.answer["removed"]
    }
    for agent in seen.agents:
        if agent["removed"] is not None and f"a{agent['number']}" not in removed:
            yield f"a{agent['number']} was removed, but not by a lead"
    yield from (f"an agent has read another agent's log: {line}" for line in seen.log.peeked)


def _tidiness(seen: Seen) -> Iterator[str]:
    """Check that forkjoin has left no lock files and no temporary index files."""
    left = [str(path) for path in seen.sandbox.common.rglob(_LOCKS) if path.name != _OURS]
    if left and "lock" not in str(seen.played.plan):
        yield f"locks are left: {left}"
    if left := [name for name in os.listdir(seen.sandbox.git_dir) if name.startswith("forkjoin-index")]:
        yield f"left behind: {left}"
