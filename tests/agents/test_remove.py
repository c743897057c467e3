"""What removing takes, and what it refuses to: git is asked, and nothing goes by halves."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from forkjoin.core.model import Agent, Removal
from forkjoin.core.paths import Home
from forkjoin.git.unsaved import unsaved_work
from forkjoin.git.worktrees import worktree
from forkjoin.reconciler import Reconciler
from support.branches import blob, everything
from support.harness import Lead, first_answer, forkjoin, git, lead_of, open_lead_in_memory, open_reconciler_in_memory


async def _is_whole(reconciler: Reconciler) -> bool:
    """Whether no removal is half done."""
    return not await reconciler.store.agents.half_removed()


async def _is_told(reconciler: Reconciler, what: str) -> bool:
    """Whether this is the last that is told of the first agent."""
    return what in (await reconciler.store.agents.get(1)).last_event


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


def worktree_of(home: Home, id_: str) -> Path:
    (found,) = home.worktrees.glob(f"*/{id_}-*")
    return found


async def refused(near: Lead, repository: Path, says: str, *ids: str, discard: bool = True) -> None:
    """See that a removal is refused in these words, and that all is as before."""
    before = everything(repository)
    told = await near.refusal("remove_worktrees", ids=list(ids), discard_unmerged=discard)
    assert says in told
    assert "othing was removed" in told
    assert everything(repository) == before


async def test_what_a_person_merged_by_hand_is_merged(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "merge", "-q", "--ff-only", branch)
    assert (await near.call("remove_worktrees", ids=[first]))["removed"] == [{"id": first, "name": "echo-x-x-txt"}]
    assert git(repository, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_what_a_target_was_set_back_before_is_not_merged_whatever_the_record_says(
    near: Lead, repository: Path
) -> None:
    (first,) = await near.run("echo x > x.txt")
    await near.call("merge_worktree", ids=[first])
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:x.txt") == "x"


async def test_what_was_built_on_by_another_agent_is_not_merged_by_that(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    await near.run("echo y > y.txt", base=branch)
    git(repository, "symbolic-ref", "refs/heads/alias", f"refs/heads/{branch}")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)


async def test_commits_that_came_after_its_end_are_unmerged_though_it_had_none(
    near: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near.run("true")
    git(worktree_of(home, first), "commit", "-q", "--allow-empty", "-m", "later")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)


async def test_an_agent_that_ended_in_a_rebase_of_its_own_branch_is_removed(near: Lead, repository: Path) -> None:
    script = """
        echo ours > README.md; git commit -qam ours
        git switch -q --detach HEAD~1; echo theirs > README.md; git commit -qam theirs
        git switch -q -; git rebase -q -"""
    (first,) = await near.run(f"{script} || true")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:README.md") == "ours"
    assert "theirs" in git(repository, "log", "--format=%s", "--glob=refs/forkjoin/kept")


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
async def test_changes_that_git_was_told_not_to_see_are_kept(near: Lead, repository: Path, flag: str) -> None:
    (first,) = await near.run(f"git update-index {flag} README.md; echo mine > README.md")
    await refused(near, repository, "README.md (git was told not to see its changes)", first, discard=False)
    await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested")
    assert b"mine" in blob(repository, kept, "files.tar")


async def test_a_change_of_the_same_length_that_configuration_hides_is_committed(near: Lead, repository: Path) -> None:
    script = """
        git config core.checkStat minimal; git config core.trustctime false; git update-index --refresh -q
        old=$(stat -c %y README.md); tr a-z b-za < README.md > /tmp/$$; cat /tmp/$$ > README.md; rm /tmp/$$
        touch -d "$old" README.md"""
    (first,) = await near.run(script)
    assert (await near.call("get_result", id=first))["files_changed"] == 1


_INNER = "git init -q inner; git -C inner commit -q --allow-empty -m own; git init -q unborn"
_SAYS = "a2 (git-init-q-inner-git-c-inner): its worktree has work that is nowhere else: inner (1 commit)"


async def test_a_repository_made_within_is_not_taken_along_unasked(near: Lead, repository: Path, home: Home) -> None:
    (second,) = await near.run("true")
    (first,) = await near.run(_INNER)
    assert "inner (1 commit)" in " ".join((await near.call("get_result", id=first))["warnings"])
    await refused(near, repository, _SAYS, second, first, discard=False)
    (worktree_of(home, first) / "inner").rename(home.state / "moved away")
    assert "warnings" not in await near.call("remove_worktrees", ids=[second, first])


async def test_a_repository_made_within_is_kept_where_it_is_discarded(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("echo '.claude/' > .gitignore; git init -q .claude/x; echo x > .claude/x/loose")
    await near.call("merge_worktree", ids=[first])
    await refused(near, repository, ".claude/x (1 uncommitted path)", first, discard=False)
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    (warning,) = answer["warnings"]
    (ref,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested").splitlines()
    assert ref in warning
    command = warning.partition("This restores it: ")[2]
    subprocess.run(["sh", "-ec", command], cwd=repository.parent, check=True)
    assert (worktree_of(home, first) / ".claude" / "x" / "loose").read_text() == "x\n"
    assert not (repository.parent / worktree_of(home, first).name).exists()
    assert "kept_as" not in answer["removed"][0]
    assert b".claude/x/loose" in blob(repository, ref, "files.tar")


async def test_what_is_made_within_while_a_teardown_runs_is_seen(near: Lead, home: Home) -> None:
    (first,) = await near.run("true")
    inner = worktree_of(home, first) / "inner"
    calls = list[Path]()
    really = unsaved_work.find_unsaved_work

    async def find(common_dir: str, path: Path, base: str) -> list[unsaved_work.UnsavedWork]:
        if calls:
            git(path, "init", "-q", "inner")
            (inner / "late").touch()
        calls.append(path)
        return await really(common_dir, path, base)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unsaved_work, "find_unsaved_work", find)
        told = await near.refusal("remove_worktrees", ids=[first])
    assert "inner (1 uncommitted path)" in told
    assert inner.exists()


async def test_a_locked_worktree_is_refused_until_it_is_unlocked(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("true")
    git(repository, "worktree", "lock", str(worktree_of(home, first)))
    await refused(near, repository, "its worktree is locked. Unlock it first: git worktree unlock", first)
    git(repository, "worktree", "unlock", str(worktree_of(home, first)))
    await near.call("remove_worktrees", ids=[first])


async def test_a_branch_that_a_person_stands_on_is_not_deleted_under_them(
    near: Lead, repository: Path, tmp_path: Path
) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "worktree", "add", "-q", "--force", str(tmp_path / "mine"), branch)
    await refused(near, repository, "is checked out", first)


async def test_where_commits_are_missing_nothing_is_guessed(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    tip = git(repository, "rev-parse", branch)
    Path(repository, ".git", "objects", tip[:2], tip[2:]).unlink()
    told = await near.refusal("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "git can't tell whether its work is merged" in told
    assert (repository / ".git" / "refs" / "heads" / branch).exists()


async def test_an_agent_whose_branch_is_gone_keeps_what_its_result_has(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "update-ref", "-d", f"refs/heads/{branch}")
    await refused(near, repository, "Unmerged work", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:x.txt") == "x"


async def test_agents_of_a_repository_that_is_gone_can_be_removed_once_that_is_known(
    near: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near.run("echo x > x.txt")
    shutil.rmtree(repository / ".git")
    git(repository, "init", "-q")
    git(repository, "commit", "-q", "--allow-empty", "-m", "anew")
    await refused(near, repository, "its repository is gone, with everything that it committed", first, discard=False)
    assert (worktree_of(home, first) / "x.txt").exists()
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert answer["removed"] == [{"id": first, "name": "echo-x-x-txt"}]
    assert list(home.worktrees.glob("*/*")) == []
    assert (await near.call("list_agents"))["agents"] == []
    assert await near.call("remove_worktrees", ids=[first]) == answer
    await near.run("echo y > y.txt")


async def test_a_removal_that_was_cut_off_takes_no_files_whose_repository_is_gone(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run("echo x > x.txt; mkdir d; touch d/f; chmod 500 d")
        await reconciler.store.agents.update(await reconciler.store.agents.get(1), removing=Removal.MERGED)
    shutil.rmtree(repository)
    async with open_reconciler_in_memory(home) as reconciler:
        await first_answer(lambda: _is_told(reconciler, "its repository is gone"))
        assert await _is_whole(reconciler)
        assert (worktree_of(home, "a1") / "x.txt").exists()
    assert not repository.exists()


async def test_asked_again_for_a_removal_that_was_cut_off_it_looks_again(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.run("true")
        await reconciler.store.lifecycle.begin_removal([await reconciler.store.agents.get(1)])
        git(worktree_of(home, first), "init", "-q", "inner")
        (worktree_of(home, first) / "inner" / "late").touch()
        assert "inner (1 uncommitted path)" in await lead.refusal("remove_worktrees", ids=[first])
        assert await _is_whole(reconciler)
        (worktree_of(home, first) / "inner").rename(home.state / "moved away")
        assert "warnings" not in await lead.call("remove_worktrees", ids=[first])


async def test_a_branch_that_moves_while_its_worktree_goes_is_kept_as_it_is_then(
    near: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    later = git(repository, "commit-tree", "-p", branch, "-m", "later", f"{branch}^{{tree}}")
    really = worktree.remove

    async def remove(common_dir: str, path: Path) -> None:
        await really(common_dir, path)
        git(repository, "update-ref", f"refs/heads/{branch}", later)

    with monkeypatch.context() as fault:
        fault.setattr(worktree, "remove", remove)
        told = await near.refusal("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "call remove_worktrees again" in told
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "rev-parse", kept) == later


async def test_of_removals_at_once_each_agent_is_in_one(near: Lead, repository: Path) -> None:
    ids = await near.run(*(f"echo {n} > {n}.txt" for n in range(4)))
    answers: list[object] = []

    async def remove() -> None:
        answers.append(await near.call("remove_worktrees", ids=ids, discard_unmerged=True))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(remove)
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept").splitlines()
    assert len(kept) == 4


async def _fall_at_removed(really: Callable[..., Awaitable[None]], *agents: Agent, **fields: object) -> None:
    if "removed" in fields:
        await _fall()
    await really(*agents, **fields)


@pytest.mark.parametrize("falls_at", ["remove", "retire_branch", "set_removed"])
async def test_a_removal_that_was_cut_off_is_finished_by_the_next_daemon(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, falls_at: str
) -> None:
    """Fault 2."""
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run("echo x > x.txt", "echo y > y.txt")
        (worktree_of(home, ids[0]) / "later.txt").write_text("later\n")
        with monkeypatch.context() as fault:
            where, name = (reconciler.store.agents, "update") if falls_at == "set_removed" else (worktree, falls_at)
            fault.setattr(
                where, name, partial(_fall_at_removed, reconciler.store.agents.update) if name == "update" else _fall
            )
            assert "falls" in await lead.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await first_answer(lambda: _is_whole(reconciler))
        assert (await lead.call("list_agents"))["agents"] == []
        assert git(repository, "for-each-ref", "refs/heads/forkjoin") == ""
        assert len(git(repository, "worktree", "list").splitlines()) == 1
        answer = await lead.call("remove_worktrees", ids=ids, discard_unmerged=True)
    kept = [one["kept_as"] for one in answer["removed"]]
    assert git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept").splitlines() == sorted(kept)
    assert git(repository, "show", f"{kept[0]}:later.txt") == "later"
    assert git(repository, "show", f"{kept[1]}:y.txt") == "y"


async def test_who_asks_again_for_a_removal_that_was_cut_off_waits_for_its_end(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run(*(f"echo {n} > {n}.txt" for n in range(6)))
        with monkeypatch.context() as fault:
            fault.setattr(worktree, "remove", _fall)
            await lead.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        answer = await lead.call("remove_worktrees", ids=ids, discard_unmerged=True)
    assert [one["id"] for one in answer["removed"]] == ids
    assert all(one["kept_as"] for one in answer["removed"])


async def test_what_can_not_be_taken_away_of_one_agent_keeps_no_other(
    near: Lead, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await near.run(*(f"echo {n} > {n}.txt" for n in range(3)))
    stuck, remove = worktree_of(home, ids[1]), worktree.remove

    async def remove_others(common_dir: str, path: Path) -> None:
        if path == stuck:
            raise OSError("Device or resource busy")
        await remove(common_dir, path)

    with monkeypatch.context() as fault:
        fault.setattr(worktree, "remove", remove_others)
        refusal = await near.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    assert f"{ids[1]} (" in refusal
    assert "Device or resource busy" in refusal
    assert f"These were removed: {ids[0]}, {ids[2]}." in refusal
    assert [path.name for path in stuck.parent.iterdir()] == [stuck.name]
    answer = await near.call("remove_worktrees", ids=ids, discard_unmerged=True)
    assert all(one["kept_as"] for one in answer["removed"])
    assert git(repository, "branch", "--list", "forkjoin/*") == ""


async def _fall(*_: object) -> None:
    raise RuntimeError("the daemon falls")


async def test_uncommitted_files_are_kept_and_ignored_ones_go(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("echo '*.log' > .gitignore; echo x > x.txt")
    await near.call("merge_worktree", ids=[first])
    (worktree_of(home, first) / "later.txt").write_text("later\n")
    (worktree_of(home, first) / "later.log").write_text("ignored\n")
    kept = (await near.call("remove_worktrees", ids=[first]))["removed"][0]["kept_as"]
    assert git(repository, "ls-tree", "--name-only", kept).split() == [
        *(".gitignore", "README.md", "later.txt", "shared.txt", "x.txt")
    ]


async def test_a_branch_that_was_made_symbolic_is_skipped_and_removed_by_itself(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    result = await near.call("get_result", id=first)
    main = git(repository, "rev-parse", "main")
    git(repository, "symbolic-ref", f"refs/heads/{result['branch']}", "refs/heads/main")
    (skipped,) = (await near.call("merge_worktree", ids=[first]))["skipped"]
    assert "its branch is a symbolic ref to refs/heads/main" in skipped["why"]
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "its branch was a symbolic ref to refs/heads/main" in " ".join(answer["warnings"])
    assert git(repository, "show", f"{answer['removed'][0]['kept_as']}:x.txt") == "x"
    assert (
        git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads") == f"refs/heads/main {main}"
    )


async def test_a_file_that_git_can_not_take_is_refused_and_kept_where_it_is_discarded(
    near: Lead, repository: Path
) -> None:
    await near.run("echo done > done; mkdir 'GIT~1'; echo precious > 'GIT~1/x'")
    await near.call("merge_worktree", ids=["a1"])
    await refused(near, repository, "GIT~1/x (git can't take it)", "a1", discard=False)
    answer = await near.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    assert "refs/forkjoin/kept/nested/a1-" in str(answer)
    (ref,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested").splitlines()
    assert "precious" in git(repository, "show", f"{ref}:files.tar")


async def test_a_submodule_that_was_left_at_another_commit_is_no_work(
    near: Lead, repository: Path, tmp_path: Path
) -> None:
    library, allow = tmp_path / "library", ("-c", "protocol.file.allow=always")
    git(tmp_path, "init", "-q", str(library))
    git(library, "commit", "-q", "--allow-empty", "-m", "one")
    git(repository, *allow, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-q", "-m", "with a submodule")
    git(repository, "switch", "-q", "-c", "next")
    git(library, "commit", "-q", "--allow-empty", "-m", "two")
    git(repository, *allow, "submodule", "update", "-q", "--remote")
    git(repository, "commit", "-q", "-a", "-m", "the next library")
    git(repository, "switch", "-q", "main")
    (first,) = await near.run(f"git {' '.join(allow)} submodule update -q --init; git merge -q next")
    await near.call("merge_worktree", ids=[first])
    assert "warnings" not in await near.call("remove_worktrees", ids=[first])


@pytest.mark.parametrize("leads_to", ["$R", "$R/.wt", ".."])
async def test_a_symlink_in_place_of_a_worktree_gives_away_no_worktree_of_another(
    near: Lead, repository: Path, home: Home, leads_to: str
) -> None:
    (repository / ".git/info/exclude").write_text(".wt/\n")
    git(repository, "worktree", "add", "-q", "-b", "feature", ".wt/feature")
    (repository / ".wt/feature/staged.txt").write_text("staged\n")
    git(repository / ".wt/feature", "add", "staged.txt")
    (other,) = await near.run("echo x > other.txt")
    both = repository / ".wt/feature", worktree_of(home, other)
    before = [git(one, "status", "--porcelain=v2", "--branch") for one in both]
    link = f'R={repository}; W=$PWD; cd /; rm -rf "$W"; ln -s {leads_to} "$W"'
    (first,) = await near.run(link)
    told = await near.call("remove_worktrees", ids=[first])
    assert [one["id"] for one in told["removed"]] == [first]
    assert [git(one, "status", "--porcelain=v2", "--branch") for one in both] == before
    assert "feature" not in str(await near.call("get_result", id=first))


async def test_a_commit_that_the_agent_reset_is_kept_by_a_plain_removal_without_a_word(
    near: Lead, repository: Path
) -> None:
    reset = "echo {0} > x; git add x; git commit -qm x; git reset -q --hard HEAD~1"
    first, other = reset.format("one"), f"git switch -q --detach; {reset.format('two')}; git switch -q -"
    ids = await near.run(first, other, "echo x > x; git add x; git commit -qm x")
    answer = await near.call("remove_worktrees", ids=ids[:2])
    assert [one["id"] for one in answer["removed"]] == ids[:2]
    assert not answer.get("warnings")
    await near.call("remove_worktrees", ids=ids[2:], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/left/").split()
    assert [git(repository, "show", f"{ref}:x") for ref in kept] == ["one", "two"]


async def test_left_commits_that_can_not_be_read_are_refused_unless_discarded(near: Lead, repository: Path) -> None:
    twice = "for n in 1 2; do git commit -q --allow-empty -m $n; done"
    object_ = "git rev-parse HEAD~1 | sed 's,..,&/,'"
    gone = f'rm -f "$(git rev-parse --git-common-dir)/objects/$({object_})"'
    (agent,) = await near.run(f"{twice}; {gone}; git reset -q --soft $FORKJOIN_BASE; git update-ref HEAD main")
    await refused(near, repository, "commits that it left behind can't be read", agent, discard=False)
    await near.call("remove_worktrees", ids=[agent], discard_unmerged=True)


#: How an agent can make git ignore all files from now on.
_HIDE = {
    "info/exclude": 'echo "*" >> "$(git rev-parse --git-common-dir)/info/exclude"',
    "the user's own rules": 'mkdir -p ~/.config/git; echo "*" >> ~/.config/git/ignore',
    "another file of the user's own": 'echo "*" > ~/all; git config --global core.excludesFile ~/all',
    "an included file": 'echo "*" > ~/all; git config -f ~/more core.excludesFile ~/all; '
    "git config --global include.path ~/more",
    "the list of what is shared": 'echo "*" > "$(git rev-parse --git-dir)/forkjoin-ignore"',
}


@pytest.mark.parametrize("how", _HIDE)
async def test_files_that_an_agent_made_git_ignore_are_refused(near: Lead, repository: Path, how: str) -> None:
    await near.run(f"{_HIDE[how]}; mkdir deep; echo precious > deep/precious")
    await refused(near, repository, "deep/precious (ignored by rules that nobody accepted", "a1", discard=False)
    await near.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested")
    assert b"precious" in blob(repository, kept, "files.tar")


async def test_what_a_file_of_the_worktree_ignores_is_no_work(near: Lead, repository: Path) -> None:
    (repository / ".rules").write_text("*.tmp\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "rules")
    git(repository, "config", "--global", "core.excludesFile", ".rules")
    (first,) = await near.run("touch x.tmp")
    assert "warnings" not in await near.call("remove_worktrees", ids=[first])


async def test_what_a_person_lets_git_ignore_is_no_work(near: Lead, repository: Path, user: Path, home: Home) -> None:
    (user / ".config" / "git").mkdir(parents=True)
    (user / ".config" / "git" / "ignore").write_text(".DS_Store\n")
    (first, second) = [(await near.run("touch .DS_Store; mkdir cache; echo '*' > cache/.gitignore"))[0] for _ in "12"]
    await near.call("remove_worktrees", ids=[first])
    (worktree_of(home, second) / "notes").touch()
    (repository / ".git" / "info" / "exclude").write_text("notes\n")
    await refused(near, repository, "notes (ignored by rules that nobody accepted", second, discard=False)
    forkjoin(repository, "trust", "--yes")
    assert "warnings" not in await near.call("remove_worktrees", ids=[second])
    assert not list(home.shared_config.glob("*/*.ignore"))
