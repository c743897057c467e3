"""Merges of branches with random histories: the target gets verified merge commits, and nothing else changes."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.merge_queue.report import MergeReport
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.store.rows import NewMergeJob
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import random_histories
from support.branches import contents
from support.harness import git
from support.merges import carry_to_its_end, open_daemon, record_branches
from support.random_histories import Commit, File

#: The user's files in the checkout. No branch changes them.
USERS: Mapping[str, File] = {
    "user/staged": ("100644", ("one", "two")),
    "user/unstaged": ("100644", ("one", "two")),
    ".gitignore": ("100644", ("*.o",)),
}


def make(folder: Path, commits: list[Commit]) -> Path:
    """Make a repository with these histories.

    Its user has changes of every kind, and a stash.
    """
    repository = folder / "repository"
    repository.mkdir()
    git(repository, "init", "-q")
    random_histories.write(repository, [Commit(one.parents, {**one.files, **USERS}) for one in commits])
    git(repository, "checkout", "-q", "-f", "-B", "main", f"b{len(commits) - 1}")
    (repository / "user" / "staged").write_text("stashed\n")
    git(repository, "stash", "-q")
    (repository / "user" / "staged").write_text("staged\n")
    git(repository, "add", "user/staged")
    (repository / "user" / "staged").write_text("staged, and more\n")
    (repository / "user" / "unstaged").write_text("unstaged\n")
    (repository / "user" / "untracked").write_bytes(bytes(range(256)))
    (repository / "user" / "ignored.o").write_bytes(b"\0")
    return repository


def read_users_state(repository: Path) -> dict[str, object]:
    """Return the user's files, stash and branches."""
    return {
        "files": {name: found for name, found in contents(repository).items() if name.startswith("user/")},
        "staged": git(repository, "ls-files", "--stage", "user"),
        "stash": git(repository, "stash", "list", "--format=%H"),
        "branches": git(repository, "for-each-ref", "refs/heads/b*"),
    }


async def merge(repository: Path, home: Home, names: list[str], verify: str) -> MergeReport:
    async with open_daemon(home) as reconciler:
        numbers = await record_branches(reconciler.store, repository, names, git(repository, "rev-parse", "b0"))
        new = NewMergeJob(1, "lead", tuple(numbers), "refs/heads/main", verify, False, "")
        number = (await reconciler.store.merges.add(new, Call("", ""))).number
        return await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), commits=st.one_of(random_histories.histories(), random_histories.histories(criss_cross=True)))
async def test_a_target_gets_one_merge_commit_per_branch_and_the_users_files_stay(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, commits: list[Commit]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    repository, log = make(folder, commits), folder / "log"
    home = Home(folder / "home", folder / "home")
    home.make()
    (folder / "home" / "config.toml").write_text(
        'default_agent = "sh"\n[agents.sh]\nkind = "command"\ncommand = ["sh"]\n'
    )
    names = data.draw(st.permutations([f"b{place}" for place in range(1, len(commits) - 1)]))
    bad = data.draw(st.integers(10, 60))
    verify = f'git rev-parse "HEAD^{{tree}}" >> {log}; ! grep -rqE "(changed by|of) {bad}" . && echo passed >> {log}'
    before, old = read_users_state(repository), git(repository, "rev-parse", "main")
    report = await merge(repository, home, names, verify)
    assert read_users_state(repository) == before
    assert git(repository, "status", "--porcelain").splitlines() == [
        "MM user/staged",
        " M user/unstaged",
        "?? user/untracked",
    ]
    if report.error:
        assert "verify fails on main itself" in report.error
        assert git(repository, "rev-parse", "main") == old
        return
    groups = (report.merged, report.conflicted, report.rejected, report.skipped)
    assert sorted(one.id for group in groups for one in group) == sorted(
        f"a{number}" for number in range(1, len(names) + 1)
    )
    chain = git(repository, "log", "--reverse", "--first-parent", "--format=%H", f"{old}..main").split()
    assert chain == [one.commit for one in report.merged]
    tip = old
    for one in report.merged:
        branch = names[int(one.id[1:]) - 1]
        assert git(repository, "rev-parse", f"{one.commit}^1", f"{one.commit}^2").split() == [
            tip,
            git(repository, "rev-parse", branch),
        ]
        merged = git(repository, "merge-tree", "--write-tree", tip, branch)
        assert git(repository, "rev-parse", f"{one.commit}^{{tree}}") == merged
        tip = str(one.commit)
    if report.merged:
        runs = log.read_text()
        assert f"{git(repository, 'rev-parse', 'main^{tree}')}\npassed\n" in runs
