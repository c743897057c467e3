"""What must hold after a history: each question yields what does not, in words."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adversary.ground import PLAIN, Ground
from adversary.play import Played
from adversary.reach import Reach
from adversary.standing import Shared, Standing, look

#: What says that a file of git's is held; forkjoin's own stays.
_LOCKS, _OURS = "*.lock", "forkjoin.lock"
#: What git takes for modified in the state `line ends`, until an agent has committed it as git wants it.
_NORMALISED = {" M crlf.txt", " M more.txt"}
#: Shared configuration that says how files are written.
_FORMS = frozenset({"core.autocrlf", "core.fileMode", "info/attributes", "core.attributesFile"})


@dataclass(frozen=True)
class Told:
    """What agents' scripts have told of."""

    work: list[tuple[str, str]]  #: token, number
    stashed: list[tuple[str, str]]  #: work that is in the stash alone, which all worktrees share
    moved: dict[str, str]  #: refs, and who has moved them
    set: list[tuple[str, str]]  #: token, what of the configuration
    tokens: list[str]
    peeked: list[str]
    blocks: bool
    locked: bool

    @classmethod
    def read(cls, file: Path) -> "Told":
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

    ground: Ground
    played: Played
    told: Told
    before: Standing
    after: Standing
    agents: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    changed: list[str]  #: of the shared configuration

    @property
    def warnings(self) -> str:
        """All that the lead was warned of."""
        return "\n".join(warning for result in self.results.values() for warning in result["warnings"])

    def warnings_of(self, ref: str) -> list[str]:
        """What the result of the agent warns of whose branch this is."""
        owner = [f"a{row['number']}" for row in self.agents if f"refs/heads/{row['branch']}" == ref]
        return [warning for id_ in owner for warning in self.results.get(id_, {"warnings": []})["warnings"]]


def check(ground: Ground, played: Played, before: Standing, shared: Shared) -> list[str]:
    """All that does not hold."""
    changed = shared.put_back()
    agents = _rows(ground, "SELECT agent.*, common_dir FROM agent JOIN project ON project.number = agent.project")
    results = {f"a{row['agent']}": json.loads(row["result"]) for row in _rows(ground, "SELECT * FROM result")}
    seen = Seen(ground, played, Told.read(ground.log), before, look(ground), agents, results, changed)
    questions = (_answers, _use, _executed, _around, _work, _refs, _targets, _checkout, _mentions, _identity, _tidiness)
    return [*dict.fromkeys(played.wrong)] + [
        f"{question.__name__[1:]}: {wrong}" for question in questions for wrong in question(seen)
    ]


def _rows(ground: Ground, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(ground.home / "records.sqlite")) as found:
        found.row_factory = sqlite3.Row
        return [dict(row) for row in found.execute(query)]


def _answers(seen: Seen) -> Iterator[str]:
    """No answer has a token, or words that a client would take for its own."""
    for one in seen.played.answered:
        if "<system-reminder>" in one.text:
            yield f"{one.tool} tells <system-reminder>"
        if any(token in one.text for token in seen.told.tokens):
            yield f"{one.tool} tells an agent's token"


def _use(seen: Seen) -> Iterator[str]:
    """Another repository is of use, and this one, unless that was made impossible."""
    if seen.played.other:
        yield f"in another repository an agent's work does not land: {seen.played.other[:500]}"
    if seen.played.fresh and not (seen.ground.blocks or seen.told.blocks):
        yield f"an agent's work does not land any more: {seen.played.fresh[:500]}"


def _executed(seen: Seen) -> Iterator[str]:
    for line in seen.ground.ran.read_text().splitlines():
        yield f"forkjoin has run {line}"


def _around(seen: Seen) -> Iterator[str]:
    """Nothing was written where forkjoin has no business."""
    for name in seen.before.around.keys() | seen.after.around.keys():
        if (now := seen.after.around.get(name)) != (was := seen.before.around.get(name)):
            yield f"{name} is {now}, not {was}"


def _work(seen: Seen) -> Iterator[str]:
    """What agents have left is kept."""
    reach = Reach(seen.ground)
    for token, number in seen.told.work:
        agent, text = _agent(token), f"work {number} of {token}\n".encode()
        if reach.has(text):
            continue
        is_taken = any(ref.startswith("refs/heads/forkjoin/") for ref in seen.told.moved)  # by another agent
        leaves = any(action in str(seen.played.plan) for action in ("detaches", "expires reflogs"))
        if (token, number) in seen.told.stashed and "expires reflogs" in str(seen.played.plan):
            continue  # an agent has thrown away what all keep in one log
        if (is_taken or leaves) and reach.has_object(text):
            continue  # or the agent itself has left its commit for another branch, or one took the reflogs away
        yield f"{agent}'s work {number} is gone"


def _agent(token: str) -> str:
    return f"a{token.removeprefix('t')}"


def _refs(seen: Seen) -> Iterator[str]:
    """No ref but agents' branches, targets and kept work has moved, unless an agent moved it, which is told."""
    branches = {f"refs/heads/{agent['branch']}" for agent in seen.agents}
    before, after = seen.before.refs, seen.after.refs
    for ref in sorted(before.keys() | after.keys()):
        is_ours = ref in branches or ref.startswith("refs/forkjoin/kept/") or ref in seen.played.targets
        if before.get(ref) != after.get(ref) and not is_ours and ref not in seen.told.moved:
            if ref == "refs/forkjoin/stream" and "plants a stream" in str(seen.played.plan):
                continue
            yield f"{ref} is {after.get(ref)}, not {before.get(ref)}"
    for ref, token in seen.told.moved.items():
        name = ref.removeprefix("refs/heads/")
        is_said = name in seen.warnings or _agent(token) in seen.played.told  # its last result says what is new since
        is_said = is_said or any(
            "s branch was " in said or "was moved from" in said or "was deleted at" in said
            for said in seen.warnings_of(ref)
        )
        own = seen.results.get(_agent(token), {"warnings": []})["warnings"]
        is_said = is_said or any("can't tell whether other branches changed" in said for said in own)  # at a pipe
        is_said = is_said or any("its branch is gone" in one.text for one in seen.played.answered)  # by a merge
        if ref.startswith("refs/heads/") and before.get(ref) != after.get(ref) and not is_said:
            yield f"{token} has moved {ref}, and no result says so"


def _targets(seen: Seen) -> Iterator[str]:
    """A target is where it was answered to be, by merges of the very commits that results name."""
    for target, commit in seen.played.targets.items():
        if target in seen.told.moved:
            continue
        now = seen.after.refs.get(target, "")
        if now != commit and seen.before.refs.get(target) != seen.after.refs.get(target):
            yield f"{target} is at {now}, and was answered to be at {commit}"
        chain = seen.ground.ask("rev-list", "--first-parent", f"{seen.before.refs[target]}..{now}", check=False)
        if strange := set(chain.split()) - seen.played.commits[target]:
            yield f"{target} has commits that nobody merged: {strange}"
    yield from _reviewed(seen)
    yield from _broken(seen)
    yield from _sound(seen)


def _reviewed(seen: Seen) -> Iterator[str]:
    """What has landed is what its result named."""
    for call in seen.played.answered:
        if call.tool != "merge_worktree" or not call.answer or call.arguments.keys() & {"strategy", "dry_run"}:
            continue
        for one in call.answer["merged"]:
            if one["id"] in seen.results and one["id"] not in seen.played.told and call.answer["target"] != "trunk":
                merged = seen.ground.ask("rev-parse", "-q", "--verify", f"{one['commit']}^2", check=False)
                if merged not in ("", named := seen.results[one["id"]]["commit"]):
                    yield f"{one['id']} was merged at {merged}, and its result says {named}"


def _broken(seen: Seen) -> Iterator[str]:
    """What breaks verify has landed only where there was none."""
    for target in seen.played.targets:
        for name in seen.ground.ask("ls-tree", "--name-only", target, check=False).splitlines():
            if name.startswith("broken-t") and _agent(name.split("-")[1]) not in seen.played.unverified:
                yield f"{target} has {name}, which breaks its verify"


def _sound(seen: Seen) -> Iterator[str]:
    """A strict git takes the targets, and can check them out."""
    targets = [target for target in seen.played.targets if target not in seen.told.moved]
    if not targets or {"partial", "grafts"} & {*seen.played.plan.states}:
        return  # nobody can fetch from these
    clone = seen.ground.folder / "clone"
    form = seen.ground.ask("rev-parse", "--show-object-format")
    seen.ground.run(seen.ground.folder, "init", "-q", f"--object-format={form}", str(clone))
    fetched = ("fetch", "-q", str(seen.ground.common), *(f"+{one}:refs/heads/x/{one[11:]}" for one in targets))
    try:
        seen.ground.run(clone, "-c", "fetch.fsckObjects=true", *fetched, "--update-shallow", extra=PLAIN)
        for target in targets:
            seen.ground.run(clone, "-c", "filter.rot.required=false", "checkout", "-q", "--detach", f"x/{target[11:]}")
        if said := seen.ground.run(clone, "fsck", "--strict", "--no-dangling", "--no-progress"):
            yield f"git fsck --strict: {said}"
    except AssertionError as error:
        yield f"a clone of {targets} can't be made: {str(error)[-400:]}"


def _checkout(seen: Seen) -> Iterator[str]:
    """The user's checkout, index, stash and HEAD are as they were, beside what has landed."""
    before, after = seen.before, seen.after
    if after.stash != before.stash and "refs/stash" not in seen.told.moved:
        yield f"the stash is {after.stash!r}, not {before.stash!r}"
    if after.branch != before.branch or (not before.branch and after.head != before.head):
        yield f"HEAD is {after.branch or after.head}, not {before.branch or before.head}"
    if before.branch in seen.told.moved or any(what in _FORMS for _, what in seen.told.set):
        return  # its files are those of another commit, or are written in another form
    if differences := (after.status ^ before.status) - _NORMALISED:
        yield f"git status tells of {sorted(differences)}"
    if after.staged != before.staged:
        yield f"staged is {after.staged}, not {before.staged}"
    for entry in before.status & after.status:
        name = entry[3:]
        if before.files.get(name) != after.files.get(name):
            yield f"{name!r} of the user's is {after.files.get(name)}, not {before.files.get(name)}"


def _mentions(seen: Seen) -> Iterator[str]:
    """Shared configuration is changed by agents alone, and what they change is told."""
    usual = any(what in str(seen.played.plan) for what in ("sparse", "adds a submodule"))  # git does it itself
    if seen.changed and not seen.told.set and not usual:
        yield f"the shared configuration has changed: {seen.changed}"
    warnings = seen.warnings.lower()
    for token, what in seen.told.set if seen.changed else ():
        if _agent(token) not in seen.played.told and not any(
            word in warnings for word in (what.lower(), what.lower().partition(".")[0], "config:", "hooks")
        ):
            yield f"{token} has set {what}, and no result says so"


def _identity(seen: Seen) -> Iterator[str]:
    """Nobody but the leads has done anything."""
    expected = seen.played.spawned + 2
    if len(seen.agents) > expected:
        yield f"there are {len(seen.agents)} agents, and {expected} were spawned"
    for row in _rows(seen.ground, "SELECT * FROM landing"):
        if not row["lead"].startswith("session-"):
            yield f"a landing of {row['lead']}: {row['answer']}"
    for row in _rows(seen.ground, "SELECT * FROM budget WHERE limit_usd IS NOT NULL"):
        yield f"a budget: {row}"
    removed = {
        one["id"]
        for call in seen.played.answered
        if call.tool == "remove_worktrees" and call.answer
        for one in call.answer["removed"]
    }
    for agent in seen.agents:
        if agent["removed"] is not None and f"a{agent['number']}" not in removed:
            yield f"a{agent['number']} was removed by nobody"
    yield from (f"an agent has read what is another's: {what}" for what in seen.told.peeked)


def _tidiness(seen: Seen) -> Iterator[str]:
    """No lock is left that no agent has left, and no process."""
    left = [str(path) for path in seen.ground.common.rglob(_LOCKS) if path.name != _OURS]
    if left and "lock" not in str(seen.played.plan):
        yield f"locks are left: {left}"
    if left := [name for name in os.listdir(seen.ground.git_dir) if name.startswith("forkjoin-index")]:
        yield f"left behind: {left}"
