"""A daemon that is killed while it spawns or prepares a resolver: the resolver is spawned and prepared once."""

import os
import signal
from pathlib import Path

import pytest
from forkjoin.agents.prepare import prepare
from forkjoin.app import open_reconciler
from forkjoin.core.model import State
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.reconciler import Reconciler
from forkjoin.store.rows import About, Asked, NewMergeJob, Restored, columns
from forkjoin.store.store import open_store
from support.branches import REAL_GIT, commit, put_git
from support.harness import git, open_lead
from support.merges import carry_to_its_end, ids_of, open_daemon, record_branches, run_job_in_subprocess
from support.resolver_agent import COMMITTED, let_agents_resolve, parents, resolve_by


async def record(home: Home, repository: Path) -> int:
    """Record a job that merges two conflicting agents and spawns a resolver.

    Return the job's number.
    """
    base = git(repository, "rev-parse", "main")
    for name in ("one", "two"):
        git(repository, "switch", "-qc", name, base)
        commit(repository, {"shared.txt": f"{name}\n"})
    git(repository, "switch", "-q", "main")
    async with open_reconciler(home) as reconciler:
        agents = await record_branches(reconciler.store, repository, ["one", "two"], base)
        new = NewMergeJob(1, "lead", tuple(agents), "refs/heads/main", None, False, "", on_conflict="agent")
        return (await reconciler.store.merges.add(new, Call("", ""))).number


async def check_one_resolver(reconciler: Reconciler, number: int) -> None:
    """Run the merge job, and check that one resolver was spawned and is named."""
    report = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    assert ([one.id for one in report.merged], [one.resolving for one in report.conflicted]) == (["a1"], ["a3"])
    agents = await reconciler.store.agents.page(1, everything=True)
    assert [(one.id, one.conflict.agent, one.worktree.base) for one in agents[:-2]] == [("a3", 2, report.commit)]


@pytest.mark.parametrize("when", ["before", "within", "after"])
async def test_the_report_and_the_resolver_are_recorded_together(repository: Path, home: Home, when: str) -> None:
    number = await record(home, repository)
    assert run_job_in_subprocess(number, os.environ, when, "1", "Merges.finish", os.devnull) == -signal.SIGKILL
    async with open_daemon(home) as reconciler:
        answered = (await reconciler.store.merges.get(number)).answer is not None
        assert (answered, len(await reconciler.store.agents.page(1, everything=True)) == 3) == (
            when == "after",
            when == "after",
        )
        await check_one_resolver(reconciler, number)


@pytest.mark.parametrize("call", ["update-ref", "merge-base", "log --first-parent"])
async def test_one_resolver_is_spawned_though_the_daemon_is_killed_while_writing_its_task(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    number = await record(home, repository)
    with monkeypatch.context() as patch:
        put_git(home.state / "bin", patch, f'case " $* " in *" {call} "*) {REAL_GIT} "$@"; kill -9 $PPID; exit;; esac')
        assert run_job_in_subprocess(number, os.environ) == -signal.SIGKILL
    async with open_daemon(home) as reconciler:
        await check_one_resolver(reconciler, number)


#: A git that kills its daemon once, at this call. {how} says when git does its work: after the kill ("meanwhile"),
#: before the kill ("after"), or not at all ("before").
KILLS = """
case " $* " in *" {call} "*)
    if mkdir {home}/killed 2>/dev/null; then
        [ {how} = after ] && {git} "$@"
        kill -9 $PPID
        if [ {how} = meanwhile ]; then
            for _ in $(seq 30); do [ -e {home}/seen ] || sleep 0.1; done
            {git} "$@"
        fi
        touch {home}/done
        exit 1
    fi
esac
"""


@pytest.mark.parametrize("call", ["clean", "merge"])
@pytest.mark.parametrize("how", ["before", "after", "meanwhile"])
async def test_a_resolvers_merge_is_begun_once_though_the_daemon_is_killed_meanwhile(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, call: str, how: str
) -> None:
    let_agents_resolve(home)
    see = "git status --short >> $FORKJOIN_HOME/seen; touch mine; until [ -e $FORKJOIN_HOME/done ]; do sleep 0.02; done"
    resolve_by(home, f"{see}; rm mine || exit 1; {COMMITTED}")
    put_git(home.state / "bin", monkeypatch, KILLS.format(call=call, how=how, home=home.state, git=REAL_GIT))
    async with open_lead(repository) as lead:
        ids = await lead.run("echo 1 > shared.txt", "echo 2 > shared.txt; echo > new")
        (conflicted,) = (await lead.call("merge_worktree", ids=ids, on_conflict="agent"))["conflicted"]
        (result,) = await lead.results(conflicted["resolving"])
        answer = await lead.call("merge_worktree", ids=["a3"])
    assert (home.state / "killed").exists()
    assert (home.state / "seen").read_text() == "A  new\nUU shared.txt\n"
    assert (result["state"], ids_of(answer, "merged")) == ("succeeded", ["a3", "a2"])
    assert len(parents(repository, result["branch"])) == 2
    assert (repository / "shared.txt").read_text() == "1\n2\n"


async def test_a_restored_resolver_resolves_the_same_conflict(repository: Path, home: Home) -> None:
    number = await record(home, repository)
    async with open_daemon(home) as reconciler:
        await check_one_resolver(reconciler, number)
        agent = await reconciler.store.agents.get(3)
        spec = agent.spec.model_dump() | {"task": "x"}
        about = About.model_validate({**columns(agent), "project": str(repository), "spec": spec, "recipe": {}})
        store = await open_store(home.state / "other.sqlite")
        await store.restored_agents.add([Restored(3, 1, about, Asked(), removed=False)], 3)
        restored = await store.agents.get(3)
        await store.close()
    assert (
        (restored.conflict.agent, restored.conflict.commit)
        == (2, git(repository, "rev-parse", "two"))
        == (2, agent.conflict.commit)
    )


async def test_preparing_a_resolver_again_keeps_the_changes_of_its_program(repository: Path, home: Home) -> None:
    number = await record(home, repository)
    async with open_daemon(home) as reconciler:
        await check_one_resolver(reconciler, number)
        agent = await reconciler.store.lifecycle.move(await reconciler.store.agents.get(3), State.PREPARING)
        agent = await prepare(reconciler.services, agent)
        (Path(agent.worktree.path) / "shared.txt").write_text("edited\n")
        (Path(agent.worktree.path) / "new").touch()
        await prepare(reconciler.services, agent)
        assert (Path(agent.worktree.path) / "shared.txt").read_text() == "edited\n"
        assert git(Path(agent.worktree.path), "status", "--short") == "UU shared.txt\n?? new"
