"""The invariants of a world at rest: answers, records, git and files must agree.

Each private function checks one invariant and yields a sentence for each violation.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash.lead import Call
from crash.person import Person
from crash.rest import agents
from crash.work import blob_id
from crash.world import World

#: Files that are in a git folder only while an operation of git or forkjoin is in progress.
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "forkjoin-index", "forkjoin-index-2")

#: The branches that the person created.
_OF_PERSON = {"main", "release", "theirs"}


@dataclass(frozen=True)
class Seen:
    """A world at rest: its records, and the words that its agents' scripts logged."""

    world: World
    agents: list[dict[str, Any]]
    results: dict[int, dict[str, Any]]
    said: dict[str, list[str]]

    @property
    def states(self) -> dict[int, str]:
        return {agent["number"]: agent["state"] for agent in self.agents}

    def started_from(self, agent: dict[str, Any]) -> set[str]:
        """Return the ids of all agents that depend on this agent, directly or indirectly."""
        after = [other for other in self.agents if agent["number"] in json.loads(other["after"])]
        return {other["id"] for other in after}.union(*(self.started_from(other) for other in after))

    def of(self, person: Person) -> list[dict[str, Any]]:
        """Return the agents in a person's repository."""
        return [agent for agent in self.agents if agent["common_dir"] == str(person.common_dir)]


def check(world: World) -> list[str]:
    """Return a sentence for each violation of an invariant."""
    results = {row["agent"]: json.loads(row["result"]) for row in world.rows("SELECT * FROM result")}
    seen = Seen(world, agents(world), results, world.said())
    found = [*_records(world), *_answers(seen), *_repeats(seen), *_spawns(seen), *_ends(seen), *_messages(seen)]
    for person in world.people:
        for question in (_work, _targets, _worktrees, _tidiness):
            found += [f"{person.folder.name}: {wrong}" for wrong in question(seen, person)]
        found += [f"{person.folder.name}: the person's work has changed: {loss}" for loss in person.losses()]
    return found


# -- records and answers


def _records(world: World) -> Iterator[str]:
    for pragma, well in (("integrity_check", [{"integrity_check": "ok"}]), ("foreign_key_check", [])):
        if (rows := world.rows(f"PRAGMA {pragma}")) != well:
            yield f"records: {pragma} reports {rows}"
    if twice := world.rows("SELECT * FROM scratch WHERE NOT retired GROUP BY project, target HAVING count(*) > 1"):
        yield f"some targets have several scratch worktrees: {twice}"
    if verdicts := world.rows("SELECT * FROM verdict"):
        yield f"verdicts of finished merges are left: {verdicts}"


def _answers(seen: Seen) -> Iterator[str]:
    """Check that every call has a reply, and that no reply reports an internal error."""
    for lead, call in seen.world.every_call():
        if call in lead.unanswered and not lead.killed:
            yield f"{lead.name} {call}: no answer"
        for answer in call.answers:
            if "error" in answer:
                yield f"{lead.name} {call}: {answer['error']}"
        if "not your fault" in call.refusal:
            yield f"{lead.name} {call}: {call.refusal}"
    for lead in (*seen.world.leads, *seen.world.gone):
        yield from (f"{lead.name} received a line that answers no call: {line}" for line in lead.strange)


def _repeats(seen: Seen) -> Iterator[str]:
    """Check that repeated calls have equal answers, and that final states stay."""
    messaged = {token for token, _ in seen.world.messages.values()}
    states = {agent["id"]: agent["state"] for agent in seen.agents if agent["token"] not in messaged}
    for lead, call in seen.world.every_call():
        results = [answer["result"].get("structuredContent") for answer in call.answers if "result" in answer]
        if call.tool in ("spawn_agents", "merge_worktree") and any(
            _stable_part(result) != _stable_part(results[0]) for result in results
        ):
            yield f"{lead.name} {call} has different answers: {results}"
        if call.tool == "wait_agents" and call.content:
            for one in call.content["finished"]:
                if (state := states.get(one["id"], one["state"])) != one["state"]:
                    yield f"{lead.name} received {one['state']} for {one['id']}, which is {state}"


def _stable_part(content: Any) -> Any:
    """Return the part of an answer that may not change.

    The places in the queue that a spawn reports may.
    """
    return [agent["id"] for agent in content["agents"]] if content and "agents" in content else content


def _spawns(seen: Seen) -> Iterator[str]:
    """Check that each spawn has created all of its agents once and in order.

    A spawn without an answer may also have created no agent.
    """
    by_token = {agent["token"]: agent["id"] for agent in seen.agents}
    if len(by_token) != len(seen.agents):
        yield f"several agents have one token: {Counter(agent['token'] for agent in seen.agents)}"
    for lead, call in seen.world.every_call():
        recorded = [by_token[token] for token in call.tokens if token in by_token]
        if call.tokens and call.answers and not call.content:
            yield f"{lead.name} {call} was refused: {call.refusal}"
        elif call.tokens and call.content and [agent["id"] for agent in call.content["agents"]] != recorded:
            yield f"{lead.name} {call} was answered {call.content}, but the records have {recorded}"
        elif recorded and len(recorded) != len(call.tokens):
            yield f"{lead.name} {call}: the records have only {recorded}"


# -- agents


def _ends(seen: Seen) -> Iterator[str]:
    """Check that each agent's state is possible and that it did not run too often."""
    for agent in seen.agents:
        name = f"{agent['id']} {agent['token']} ({seen.world.works[agent['token']].kind})"
        said, state, result = seen.said[agent["token"]], agent["state"], seen.results.get(agent["number"])
        if "start" in said and _is_skipped(seen, agent):
            yield f"{name} has run although not all of its dependencies {agent['after']} have succeeded"
        if state not in _possible(seen, agent):
            error = (result or {}).get("error")
            yield f"{name} is {state}; killed processes: {seen.world.hurt.get(agent['id'])}; error: {error}"
        if result is None or result["state"] != state:
            yield f"{name} is {state}, but its result is {result}"
        runs = seen.world.works[agent["token"]].expected.runs
        more = sum(token == agent["token"] for token, _ in seen.world.messages.values())
        if said.count("start") > runs + more or said.count("end") > 1 + more:
            yield f"{name} ran too often: {said}"
        if state == "succeeded" and "end" not in said:
            yield f"{name} is succeeded, but its script logged only {said}"
        if agent["merge"] == "queued":
            yield f"{name} is queued for a merge that does not exist"


def _messages(seen: Seen) -> Iterator[str]:
    """Check that agents receive their messages in the order of the records.

    Killed and stopped agents may miss some.
    """
    mail = seen.world.rows("SELECT agent, text FROM mail ORDER BY number")
    for agent in seen.agents:
        recorded = [row["text"].removeprefix("say ") for row in mail if row["agent"] == agent["number"]]
        heard = list(dict.fromkeys(word for word in seen.said[agent["token"]] if word in seen.world.messages))
        if heard != [word for word in recorded if word in heard]:
            yield f"{agent['id']} was sent {recorded}, but received {heard}"
        hindered = {agent["id"]} & (seen.world.stopped | seen.world.hurt.keys()) or _is_skipped(seen, agent)
        for word in recorded if not hindered else ():
            if word not in heard:
                yield f"{agent['id']} was sent {word}, but has not received it"
    sent = {row["text"].removeprefix("say ") for row in mail}
    for word, (token, call) in seen.world.messages.items():
        if call.answers and (word in sent) != bool(call.content):
            yield f"{call} to {token} was answered {call.content or call.refusal}; {word} is recorded: {word in sent}"


def _is_skipped(seen: Seen, agent: dict[str, Any]) -> bool:
    """Return whether a dependency of the agent has not succeeded."""
    return any(seen.states[number] != "succeeded" for number in json.loads(agent["after"]))


def _possible(seen: Seen, agent: dict[str, Any]) -> set[str]:
    """Return the states that the agent may be in."""
    world = seen.world
    states = {"failed" if _is_skipped(seen, agent) else world.works[agent["token"]].expected.ends}
    if agent["id"] in world.stopped:
        states.add("stopped")
    if agent["id"] in world.hurt:
        states |= {"failed", "lost", "succeeded"}
    return states


def _work(seen: Seen, person: Person) -> Iterator[str]:
    """Check that all files of agents are reachable in git."""
    reachable = {line.split(" ")[0] for line in person.git("rev-list", "--objects", "--all").splitlines()}
    for agent in seen.of(person):
        for word, blob in seen.world.works[agent["token"]].blobs(set(seen.said[agent["token"]])).items():
            if blob not in reachable:
                yield f"{agent['id']} {agent['token']} is {agent['state']}, {agent['merge']}; the file {word!r} is lost"
        if "nested" in seen.said[agent["token"]] and not _has_nested(seen, person, agent):
            yield f"{agent['id']} {agent['token']} is {agent['state']}, {agent['merge']}; its nested repository is lost"


def _has_nested(seen: Seen, person: Person, agent: dict[str, Any]) -> bool:
    """Return whether the file in the agent's nested repository still exists.

    It may be in the worktree, in a kept archive, or in a submodule's repository.
    """
    text, token = seen.world.works[agent["token"]].nested, agent["token"]
    if Path(agent["worktree"], f"{token}.in", "file").exists():
        return True
    slug = f"refs/forkjoin/kept/nested/{agent['id']}-{agent['name']}"
    kept = person.git("for-each-ref", "--format=%(refname)", slug, f"{slug}-*").splitlines()
    if any(text in person.git("cat-file", "blob", f"{ref}:files.tar") for ref in kept):
        return True
    module = str(person.common_dir / "modules" / f"{token}.in")
    objects = person.git("--git-dir", module, "rev-list", "--objects", "--all", check=False)
    return blob_id(text) in objects


# -- git


def _targets(seen: Seen, person: Person) -> Iterator[str]:
    """Check that targets have exactly the recorded merges and the person's commits."""
    merged: Counter[tuple[str, str]] = Counter()
    for target in ("main", "release"):
        commits: list[str] = []
        form = "--format=%s%x00%P%x00%(trailers:key=Forkjoin-Agent,valueonly,separator=%x2C)"
        for line in person.git("log", "--first-parent", "--reverse", form, f"{person.first}..{target}").splitlines():
            subject, parents, agent = line.split("\0")
            if subject.startswith("person "):
                commits.append(subject)
            elif agent and len(parents.split()) == 2:
                merged[target, agent] += 1
            else:
                yield f"{target} has the unexpected commit {subject!r} of agent {agent!r}"
        if target == "main" and commits != person.commits:
            yield f"main has the person's commits {commits}, not {person.commits}"
    recorded = Counter(_recorded_merges(seen, person))
    if merged != recorded or any(count > 1 for count in recorded.values()):
        yield f"merged but not recorded: {merged - recorded}; recorded but not merged: {recorded - merged}"
    yield from _contents(seen, person, merged)


def _recorded_merges(seen: Seen, person: Person) -> Iterator[tuple[str, str]]:
    """Yield the target and the agent of each merge in the recorded answers."""
    query = "SELECT landing.* FROM landing JOIN project ON project.number = landing.project WHERE common_dir = ?"
    for merge in seen.world.rows(query, str(person.common_dir)):
        answer = json.loads(merge["answer"])
        for one in answer["merged"] if not merge["dry_run"] else ():
            yield merge["target"].removeprefix("refs/heads/"), one["id"]


def _contents(seen: Seen, person: Person, merged: Collection[tuple[str, str]]) -> Iterator[str]:
    """Check that the files of merged agents are in their targets.

    Main, which agents start from, has no other agents' files.
    """
    names = {target: set(person.git("ls-tree", "--name-only", target).splitlines()) for target in ("main", "release")}
    for agent in seen.of(person):
        file, left = f"{agent['token']}.txt", "left" in seen.said[agent["token"]]
        into = {target for target, id_ in merged if id_ == agent["id"]}
        for target in ("main", "release"):
            if target in into and left and file not in names[target]:
                yield f"{agent['id']} was merged into {target}, which does not have {file}"
        if "main" not in into and file in names["main"] and not _is_in_dependents(seen, agent, merged, "main"):
            yield f"{agent['id']} was not merged into main, which has {file}"
        if into and agent["merge"] != "merged":
            yield f"{agent['id']} was merged into {into}, but is {agent['merge']}"
        if agent["merge"] == "merged" and not into and not _is_in_dependents(seen, agent, merged):
            yield f"{agent['id']} is recorded as merged, but no target has its merge"


def _is_in_dependents(seen: Seen, agent: dict[str, Any], merged: Collection[tuple[str, str]], *targets: str) -> bool:
    """Return whether an agent that depends on this one was merged into a target.

    Without targets, any target counts.
    """
    into = {target for target, id_ in merged if id_ in seen.started_from(agent)}
    return bool(into & {*targets} if targets else into)


def _worktrees(seen: Seen, person: Person) -> Iterator[str]:
    """Check that worktrees, branches and refs are exactly those of the records."""
    standing = {agent["id"]: agent for agent in seen.of(person) if agent["prepared"] and agent["removed"] is None}
    listing = person.git("worktree", "list", "--porcelain").splitlines()
    listed = {line.removeprefix("worktree ") for line in listing if line.startswith("worktree ")}
    recorded = {str(person.folder), *(agent["worktree"] for agent in standing.values())}
    if not recorded <= listed <= recorded | set(_scratch(seen, person)):
        yield f"worktrees only git knows: {listed - recorded}; worktrees only the records know: {recorded - listed}"
    existing = {path for path in listed if Path(path, ".git").exists()}
    if existing != listed:
        yield f"worktrees that do not exist: {listed - existing}"
    refs = dict(
        line.split(" ") for line in person.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    )
    branches = {ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/")} - _OF_PERSON
    if branches != {agent["branch"] for agent in standing.values()}:
        yield f"branches that differ from the records: {branches ^ {agent['branch'] for agent in standing.values()}}"
    for agent in standing.values():
        tip, commit = refs.get(f"refs/heads/{agent['branch']}"), seen.results.get(agent["number"], {}).get("commit")
        if commit is not None and tip != commit:
            yield f"{agent['id']}: the branch is at {tip}, but the result names {commit}"
    kept = {ref for ref in refs if ref.startswith("refs/forkjoin/kept/")}
    if others := {ref for ref in refs.keys() - kept if not ref.startswith("refs/heads/")} - {"refs/tags/v1"}:
        yield f"unknown refs: {others}"
    yield from _kept(seen, person, kept)


def _scratch(seen: Seen, person: Person) -> Iterator[str]:
    """Yield the paths of a repository's scratch worktrees."""
    query = "SELECT scratch.number FROM scratch JOIN project ON project.number = scratch.project WHERE common_dir = ?"
    for row in seen.world.rows(query, str(person.common_dir)):
        yield f"{seen.world.home}/worktrees/target-{row['number']}"


def _kept(seen: Seen, person: Person, refs: set[str]) -> Iterator[str]:
    """Check that kept refs belong to agents, and that removals are as reported."""
    slugs = {f"{agent['id']}-{agent['name']}" for agent in seen.of(person)}
    for ref in refs:
        name = ref.removeprefix("refs/forkjoin/kept/").removeprefix("nested/")
        if name not in slugs and name.rpartition("-")[0] not in slugs:
            yield f"{ref} belongs to no agent"
    for lead, call in seen.world.every_call():
        if lead.where == person.folder and call.tool == "remove_worktrees" and call.content:
            yield from _removed(seen, call, refs)


def _removed(seen: Seen, call: Call, refs: set[str]) -> Iterator[str]:
    removed = {agent["id"]: agent["removed"] for agent in seen.agents}
    for one in call.content["removed"]:
        if one.get("kept_as") and one["kept_as"] not in refs:
            yield f"{one['id']} should be kept as {one['kept_as']}, which does not exist"
        if removed[one["id"]] is None:
            yield f"{one['id']} was reported as removed, but its record is not"


def _tidiness(seen: Seen, person: Person) -> Iterator[str]:
    """Check for locks, unfinished operations, corrupt objects and unknown folders."""
    locks = [str(path) for path in person.common_dir.rglob("*.lock") if path.name != "forkjoin.lock"]
    if left := locks + [name for name in _UNDER_WAY if (person.common_dir / name).exists()]:
        yield f"left behind: {left}"
    done = person.run("git", "fsck", "--strict", "--no-dangling", "--no-progress")
    if done.returncode or done.stdout or done.stderr:
        yield f"git fsck: {done.stdout}{done.stderr}"
    recorded = {agent["worktree"] for agent in seen.agents if agent["prepared"] and agent["removed"] is None}
    worktrees = seen.world.home / "worktrees"
    scratch = {str(path) for path in worktrees.glob("target-*")}
    folders = {str(path) for path in worktrees.glob("*/*") if str(path.parent) not in scratch}
    known = {path for other in seen.world.people for path in _scratch(seen, other)}
    if stray := (folders | scratch) - recorded - known:
        yield f"folders without a record: {stray}"
    if runs := [path.name for path in (seen.world.home / "attempts").glob("t*")]:
        yield f"finished runs of merges' verify commands are left: {runs}"
