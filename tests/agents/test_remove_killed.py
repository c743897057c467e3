"""Daemons killed at each step of a removal while a person works in the worktree: no work is lost."""

import shutil
from pathlib import Path

import pytest
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import blob
from support.fakes.removing_daemon import remove_elsewhere
from support.harness import first_answer, git, lead_of, open_reconciler_in_memory
from support.merges import start_forkserver

_ALLOW = ("-c", "protocol.file.allow=always")
#: Work on the branch, a clean clone and a worktree in an ignored folder, and a submodule.
_SCRIPT = f"""
echo x > x.txt; echo deps > .gitignore; git add .; git commit -qm x
git clone -q "$(git rev-parse --git-common-dir)" deps/clone; git worktree add -q --detach deps/tree
git {" ".join(_ALLOW)} submodule update -q --init"""


class World:
    """A repository and a home with ended agents, and a copy of both to restore."""

    def __init__(self, repository: Path, home: Home) -> None:
        self.repository, self.home = repository, home
        self._copy = repository.parent / "copy"

    async def make(self, script: str, *, merge: bool) -> None:
        library = self.repository.parent / "library"
        git(self.repository.parent, "init", "-q", "library")
        git(library, "commit", "-q", "--allow-empty", "-m", "library")
        git(self.repository, *_ALLOW, "submodule", "add", "-q", str(library), "lib")
        git(self.repository, "commit", "-qm", "with a submodule")
        async with open_reconciler_in_memory(self.home) as reconciler, lead_of(reconciler, self.repository) as lead:
            await lead.run(script)
            if merge:
                await lead.call("merge_worktree", ids=["a1"])
        for folder in (self.repository, self.home.state):
            shutil.copytree(folder, self._copy / folder.name, symlinks=True, ignore=shutil.ignore_patterns("poke"))

    def begin_again(self) -> None:
        for folder in (self.repository, self.home.state):
            shutil.rmtree(folder)
            shutil.copytree(self._copy / folder.name, folder, symlinks=True)

    @property
    def worktree(self) -> Path:
        return next(self.home.worktrees.glob("*/a1-*"), self.home.worktrees / "none")

    def go_on(self) -> list[str]:
        """Write files in the rest of the worktree, and return the ends of their paths."""
        if not self.worktree.exists():
            return []
        (self.worktree / "late.txt").write_text("late\n")
        folder = self.repository / ".git" / "worktrees" / self.worktree.name
        return ["late.txt", *self._commit(self.worktree / "deps/clone/.git"), *self._commit(folder / "modules/lib")]

    def _commit(self, folder: Path) -> list[str]:
        """Commit in the nested repository if it exists, and return the end of the path."""
        at = ("--git-dir", str(folder))
        if not git(self.repository, *at, "rev-parse", "HEAD^{tree}", check=False).isalnum():
            return []
        late = git(self.repository, *at, "commit-tree", "-m", "late", "HEAD^{tree}")
        git(self.repository, *at, "update-ref", "HEAD", late)
        return [f"objects/{late[:2]}/{late[2:]}"]

    def has(self, work: str) -> bool:
        """Return whether this work is in the worktree, on a branch, or kept."""
        tops = (self.worktree, self.repository / ".git" / "worktrees")
        if any(list(top.rglob(work)) for top in tops):
            return True
        refs = git(self.repository, "for-each-ref", "--format=%(refname)").splitlines()
        names = {ref: git(self.repository, "ls-tree", "--name-only", ref).splitlines() for ref in refs}
        archives = [blob(self.repository, ref, "files.tar") for ref in refs if "files.tar" in names[ref]]
        return any(work in there for there in names.values()) or any(work.encode() in archive for archive in archives)

    async def see_the_end(self, reconciler: Reconciler) -> Agent:
        """Return the agent once its removal is finished or refused."""

        async def look() -> Agent | None:
            agent = await reconciler.store.agents.get(1)
            return agent if "its removal was interrupted" in agent.last_event else None

        agent = await first_answer(look)
        assert agent
        assert not await reconciler.store.agents.half_removed()
        return agent

    def check_all_is_gone(self) -> None:
        assert not self.worktree.exists()
        assert git(self.repository, "for-each-ref", "refs/heads/forkjoin") == ""
        assert list(self.repository.glob(".git/worktrees/*/gitdir")) == []

    def check_all_is_there(self) -> None:
        assert git(self.worktree, "show", "HEAD:x.txt") == "x"
        assert git(self.worktree / "deps" / "clone", "fsck") == ""
        assert git(self.worktree / "deps" / "tree", "status", "--porcelain") == ""
        assert git(self.worktree / "lib", "status", "--porcelain") == ""


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    start_forkserver()


@pytest.fixture
def world(repository: Path, home: Home) -> World:
    return World(repository, home)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_killed_at_any_step_a_plain_removal_is_finished_or_refused(world: World, goes_on: bool) -> None:
    await world.make(_SCRIPT, merge=True)
    number, ends = 1, set[bool]()
    while remove_elsewhere(discard=False, falls_at=number):
        late = world.go_on() if goes_on else []
        async with open_reconciler_in_memory(world.home) as reconciler:
            agent = await world.see_the_end(reconciler)
        assert all(world.has(work) for work in late), late
        if agent.timing.removed:
            world.check_all_is_gone()
        else:
            assert late
            assert "its removal was interrupted, and is not finished: a1" in agent.last_event
            world.check_all_is_there()
        ends.add(bool(agent.timing.removed))
        world.begin_again()
        number += 5 if goes_on else 9
    assert number > 30, "these were the steps of a whole removal"
    assert ends == ({False, True} if goes_on else {True})


_DISCARDED = f"{_SCRIPT}\ngit -C deps/clone commit -q --allow-empty -m own"


async def test_work_made_after_an_interrupted_discard_is_kept(world: World) -> None:
    await world.make(_DISCARDED, merge=False)
    for number in (1, 4, 12):
        assert remove_elsewhere(discard=True, falls_at=number)
        late = world.go_on()
        async with open_reconciler_in_memory(world.home) as reconciler:
            agent = await world.see_the_end(reconciler)
        assert late
        assert all(world.has(work) for work in late), late
        assert agent.timing.removed
        assert "its work is kept as refs/forkjoin/kept/" in agent.last_event
        world.check_all_is_gone()
        world.begin_again()


async def test_a_branch_that_a_person_checked_out_after_an_interrupted_removal_is_kept(world: World) -> None:
    await world.make(_SCRIPT, merge=True)
    assert remove_elsewhere(discard=False, falls_at=12)
    branch = git(world.repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/forkjoin")
    mine = world.repository.parent / "mine"
    git(world.repository, "worktree", "add", "-q", "--force", str(mine), branch)
    async with open_reconciler_in_memory(world.home) as reconciler:
        assert (await world.see_the_end(reconciler)).timing.removed
    assert git(mine, "log", "--format=%s", "-1") == "x"
    assert not world.worktree.exists()
