"""What must hold once all is at rest: what was answered, records, git, files and the process table tell the same.

Each question yields what is wrong, in words; nothing is what must come.
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

#: What git and forkjoin leave in a git folder while something is under way.
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "forkjoin-index", "forkjoin-index-2")

#: Branches that no agent has made.
_OF_PERSON = {"main", "release", "theirs"}


@dataclass(frozen=True)
class Seen:
    """A world at rest: what its records say, and what its agents' scripts did."""

    world: World
    agents: list[dict[str, Any]]
    results: dict[int, dict[str, Any]]
    said: dict[str, list[str]]

    @property
    def states(self) -> dict[int, str]:
        return {agent["number"]: agent["state"] for agent in self.agents}

    def started_from(self, agent: dict[str, Any]) -> set[str]:
        """Ids of those that start from an agent's work, or from the work of such."""
        after = [one for one in self.agents if agent["number"] in json.loads(one["after"])]
        return {one["id"] for one in after}.union(*(self.started_from(one) for one in after))

    def of(self, person: Person) -> list[dict[str, Any]]:
        return [agent for agent in self.agents if agent["common_dir"] == str(person.common_dir)]


def check(world: World) -> list[str]:
    """All that does not hold."""
    results = {row["agent"]: json.loads(row["result"]) for row in world.rows("SELECT * FROM result")}
    seen = Seen(world, agents(world), results, world.said())
    found = [*_records(world), *_answers(seen), *_repeats(seen), *_spawns(seen), *_ends(seen), *_messages(seen)]
    for person in world.people:
        for question in (_work, _targets, _worktrees, _tidiness):
            found += [f"{person.folder.name}: {wrong}" for wrong in question(seen, person)]
        found += [f"{person.folder.name}: lost of the person's: {lost}" for lost in person.losses()]
    return found


# -- records and answers


def _records(world: World) -> Iterator[str]:
    for pragma, well in (("integrity_check", [{"integrity_check": "ok"}]), ("foreign_key_check", [])):
        if (told := world.rows(f"PRAGMA {pragma}")) != well:
            yield f"records: {pragma} tells {told}"
    if twice := world.rows("SELECT * FROM scratch WHERE NOT retired GROUP BY project, target HAVING count(*) > 1"):
        yield f"targets have several scratch worktrees: {twice}"
    if verdicts := world.rows("SELECT * FROM verdict"):
        yield f"verdicts of landings that are done: {verdicts}"


def _answers(seen: Seen) -> Iterator[str]:
    """Every call was answered in JSON-RPC, by its result, and by no fault of ours."""
    for lead, call in seen.world.every_call():
        if call in lead.unanswered and not lead.killed:
            yield f"{lead.name} {call}: never answered"
        for answer in call.answers:
            if "error" in answer:
                yield f"{lead.name} {call}: {answer['error']}"
        if "not your fault" in call.refusal:
            yield f"{lead.name} {call}: {call.refusal}"
    for lead in (*seen.world.leads, *seen.world.gone):
        yield from (f"{lead.name} was sent what it had not asked for: {line}" for line in lead.strange)


def _repeats(seen: Seen) -> Iterator[str]:
    """What was answered once is answered the same ever after."""
    told_more = {token for token, _ in seen.world.messages.values()}
    states = {agent["id"]: agent["state"] for agent in seen.agents if agent["token"] not in told_more}
    for lead, call in seen.world.every_call():
        results = [answer["result"].get("structuredContent") for answer in call.answers if "result" in answer]
        if call.tool in ("spawn_agents", "merge_worktree") and any(_gist(one) != _gist(results[0]) for one in results):
            yield f"{lead.name} {call} was answered {results}"
        if call.tool == "wait_agents" and call.content:
            for one in call.content["finished"]:
                if (state := states.get(one["id"], one["state"])) != one["state"]:
                    yield f"{lead.name} was told that {one['id']} {one['state']}, and it is {state}"


def _gist(content: Any) -> Any:
    """Of an answer what may not change: a spawn tells places in the queue, too."""
    return [one["id"] for one in content["agents"]] if content and "agents" in content else content


def _spawns(seen: Seen) -> Iterator[str]:
    """Each spawn is one spawn: all of its agents are there, in the order asked for, and once; or none, unanswered."""
    by_token = {agent["token"]: agent["id"] for agent in seen.agents}
    if len(by_token) != len(seen.agents):
        yield f"agents that were asked for once, or never: {Counter(agent['token'] for agent in seen.agents)}"
    for lead, call in seen.world.every_call():
        there = [by_token[token] for token in call.tokens if token in by_token]
        if call.tokens and call.answers and not call.content:
            yield f"{lead.name} {call} was refused: {call.refusal}"
        elif call.tokens and call.content and [one["id"] for one in call.content["agents"]] != there:
            yield f"{lead.name} {call} was answered {call.content}, and there are {there}"
        elif there and len(there) != len(call.tokens):
            yield f"{lead.name} {call}: only {there} are there"


# -- agents


def _ends(seen: Seen) -> Iterator[str]:
    """Each agent is in a state that its work can end in, with a result that says so, and has run as often as it may."""
    for agent in seen.agents:
        name = f"{agent['id']} {agent['token']} ({seen.world.works[agent['token']].kind})"
        said, state, result = seen.said[agent["token"]], agent["state"], seen.results.get(agent["number"])
        if "start" in said and _is_skipped(seen, agent):
            yield f"{name} comes after {agent['after']}, not all of which have succeeded, and has run"
        if state not in _possible(seen, agent):
            error = (result or {}).get("error")
            yield f"{name} is {state}, its processes killed: {seen.world.hurt.get(agent['id'])}; {error}"
        if result is None or result["state"] != state:
            yield f"{name} is {state}, its result says {result}"
        runs = seen.world.works[agent["token"]].expected.runs
        more = sum(token == agent["token"] for token, _ in seen.world.messages.values())
        if said.count("start") > runs + more or said.count("end") > 1 + more:
            yield f"{name} ran too often: {said}"
        if state == "succeeded" and "end" not in said:
            yield f"{name} is said to have succeeded, and did {said}"
        if agent["merge"] == "queued":
            yield f"{name} waits for no landing"


def _messages(seen: Seen) -> Iterator[str]:
    """Who was told something has heard it, in the order in which it was recorded; a killed or stopped one may not."""
    mail = seen.world.rows("SELECT agent, text FROM mail ORDER BY number")
    for agent in seen.agents:
        recorded = [row["text"].removeprefix("say ") for row in mail if row["agent"] == agent["number"]]
        heard = list(dict.fromkeys(word for word in seen.said[agent["token"]] if word in seen.world.messages))
        if heard != [word for word in recorded if word in heard]:
            yield f"{agent['id']} was told {recorded}, and heard {heard}"
        hindered = {agent["id"]} & (seen.world.stopped | seen.world.hurt.keys()) or _is_skipped(seen, agent)
        for word in recorded if not hindered else ():
            if word not in heard:
                yield f"{agent['id']} was told {word}, and has not heard it"
    told = {row["text"].removeprefix("say ") for row in mail}
    for word, (token, call) in seen.world.messages.items():
        if call.answers and (word in told) != bool(call.content):
            yield f"{call} to {token} was answered {call.content or call.refusal}, and {word} is told: {word in told}"


def _is_skipped(seen: Seen, agent: dict[str, Any]) -> bool:
    """Whether it comes after one that has not succeeded."""
    return any(seen.states[number] != "succeeded" for number in json.loads(agent["after"]))


def _possible(seen: Seen, agent: dict[str, Any]) -> set[str]:
    world = seen.world
    states = {"failed" if _is_skipped(seen, agent) else world.works[agent["token"]].expected.ends}
    if agent["id"] in world.stopped:
        states.add("stopped")
    if agent["id"] in world.hurt:
        states |= {"failed", "lost", "succeeded"}
    return states


def _work(seen: Seen, person: Person) -> Iterator[str]:
    """All that agents have left is reachable, byte for byte, whatever became of them."""
    reachable = {line.split(" ")[0] for line in person.git("rev-list", "--objects", "--all").splitlines()}
    for agent in seen.of(person):
        for word, blob in seen.world.works[agent["token"]].blobs(set(seen.said[agent["token"]])).items():
            if blob not in reachable:
                yield f"{agent['id']} {agent['token']} is {agent['state']}, {agent['merge']}; gone: what it {word}"
        if "nested" in seen.said[agent["token"]] and not _has_nested(seen, person, agent):
            yield f"{agent['id']} {agent['token']} is {agent['state']}, {agent['merge']}; gone: its nested repository"


def _has_nested(seen: Seen, person: Person, agent: dict[str, Any]) -> bool:
    """Whether its nested repository stands, is kept as a folder of files, or is a submodule's that has its commit."""
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
    """Targets hold what landings say they do, each agent once, and a person's commits: nothing else, nothing less."""
    landed: Counter[tuple[str, str]] = Counter()
    for target in ("main", "release"):
        commits: list[str] = []
        form = "--format=%s%x00%P%x00%(trailers:key=Forkjoin-Agent,valueonly,separator=%x2C)"
        for line in person.git("log", "--first-parent", "--reverse", form, f"{person.first}..{target}").splitlines():
            subject, parents, agent = line.split("\0")
            if subject.startswith("person "):
                commits.append(subject)
            elif agent and len(parents.split()) == 2:
                landed[target, agent] += 1
            else:
                yield f"{target} has {subject!r} of {agent}"
        if target == "main" and commits != person.commits:
            yield f"main has the person's {commits}, not {person.commits}"
    told = Counter(_told(seen, person))
    if landed != told or any(count > 1 for count in told.values()):
        yield f"landed, and not told: {landed - told}; told, and not landed: {told - landed}; of {told}"
    yield from _contents(seen, person, landed)


def _told(seen: Seen, person: Person) -> Iterator[tuple[str, str]]:
    """Which agents have landed where, as the records' landings say, and as the leads were told."""
    query = "SELECT landing.* FROM landing JOIN project ON project.number = landing.project WHERE common_dir = ?"
    for landing in seen.world.rows(query, str(person.common_dir)):
        answer = json.loads(landing["answer"])
        for one in answer["merged"] if not landing["dry_run"] else ():
            yield landing["target"].removeprefix("refs/heads/"), one["id"]


def _contents(seen: Seen, person: Person, landed: Collection[tuple[str, str]]) -> Iterator[str]:
    """The files of those that have landed are in their target; in main, which agents start from, no others'."""
    names = {target: set(person.git("ls-tree", "--name-only", target).splitlines()) for target in ("main", "release")}
    for agent in seen.of(person):
        file, left = f"{agent['token']}.txt", "left" in seen.said[agent["token"]]
        where = {target for target, one in landed if one == agent["id"]}
        for target in ("main", "release"):
            if target in where and left and file not in names[target]:
                yield f"{agent['id']} has landed on {target}, and {file} is not there"
        if "main" not in where and file in names["main"] and not _is_brought(seen, agent, landed, "main"):
            yield f"{agent['id']} has not landed on main, and {file} is there"
        if where and agent["merge"] != "merged":
            yield f"{agent['id']} has landed on {where}, and is {agent['merge']}"
        if agent["merge"] == "merged" and not where and not _is_brought(seen, agent, landed):
            yield f"{agent['id']} is merged, and has landed nowhere"


def _is_brought(seen: Seen, agent: dict[str, Any], landed: Collection[tuple[str, str]], *targets: str) -> bool:
    """Whether an agent that starts from its work has landed, on one of these targets or on any."""
    brought = {target for target, one in landed if one in seen.started_from(agent)}
    return bool(brought & {*targets} if targets else brought)


def _worktrees(seen: Seen, person: Person) -> Iterator[str]:
    """Worktrees and branches are those of the records, and what was removed with work in it is kept."""
    standing = {agent["id"]: agent for agent in seen.of(person) if agent["prepared"] and agent["removed"] is None}
    listing = person.git("worktree", "list", "--porcelain").splitlines()
    listed = {line.removeprefix("worktree ") for line in listing if line.startswith("worktree ")}
    recorded = {str(person.folder), *(agent["worktree"] for agent in standing.values())}
    if not recorded <= listed <= recorded | set(_scratch(seen, person)):
        yield f"worktrees listed and not recorded: {listed - recorded}; recorded and not listed: {recorded - listed}"
    there = {path for path in listed if Path(path, ".git").exists()}
    if there != listed:
        yield f"worktrees that are not there: {listed - there}"
    refs = dict(
        line.split(" ") for line in person.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    )
    branches = {ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/")} - _OF_PERSON
    if branches != {agent["branch"] for agent in standing.values()}:
        yield f"branches that are not as recorded: {branches ^ {agent['branch'] for agent in standing.values()}}"
    for agent in standing.values():
        tip, commit = refs.get(f"refs/heads/{agent['branch']}"), seen.results.get(agent["number"], {}).get("commit")
        if commit is not None and tip != commit:
            yield f"{agent['id']}: its branch is at {tip}, and its result says {commit}"
    kept = {ref for ref in refs if ref.startswith("refs/forkjoin/kept/")}
    if others := {ref for ref in refs.keys() - kept if not ref.startswith("refs/heads/")} - {"refs/tags/v1"}:
        yield f"refs that nobody made: {others}"
    yield from _kept(seen, person, kept)


def _scratch(seen: Seen, person: Person) -> Iterator[str]:
    """Where scratch worktrees of a repository stand."""
    query = "SELECT scratch.number FROM scratch JOIN project ON project.number = scratch.project WHERE common_dir = ?"
    for one in seen.world.rows(query, str(person.common_dir)):
        yield f"{seen.world.home}/worktrees/target-{one['number']}"


def _kept(seen: Seen, person: Person, refs: set[str]) -> Iterator[str]:
    slugs = {f"{agent['id']}-{agent['name']}" for agent in seen.of(person)}
    for ref in refs:
        name = ref.removeprefix("refs/forkjoin/kept/").removeprefix("nested/")
        if name not in slugs and name.rpartition("-")[0] not in slugs:
            yield f"{ref} is of no agent"
    for lead, call in seen.world.every_call():
        if lead.where == person.folder and call.tool == "remove_worktrees" and call.content:
            yield from _removed(seen, call, refs)


def _removed(seen: Seen, call: Call, refs: set[str]) -> Iterator[str]:
    removed = {agent["id"]: agent["removed"] for agent in seen.agents}
    for one in call.content["removed"]:
        if one.get("kept_as") and one["kept_as"] not in refs:
            yield f"{one['id']} was said to be kept as {one['kept_as']}"
        if removed[one["id"]] is None:
            yield f"{one['id']} was said to be removed"


def _tidiness(seen: Seen, person: Person) -> Iterator[str]:
    """No lock, nothing under way, nothing broken, and no folder that no record knows."""
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
    known = {path for one in seen.world.people for path in _scratch(seen, one)}
    if stray := (folders | scratch) - recorded - known:
        yield f"folders without a record: {stray}"
    if runs := [path.name for path in (seen.world.home / "attempts").glob("t*")]:
        yield f"runs of landings' verify that are over and not forgotten: {runs}"
