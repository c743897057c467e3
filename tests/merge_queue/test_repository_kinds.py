"""Merges in repositories of every kind (faults 20 and 21)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.paths import Home
from forkjoin.git.worktrees.checkout import check_free
from forkjoin.merge_queue.report import MergeReport
from support.branches import GIT_VERSION, commit, contents, write
from support.harness import git
from support.merges import record_merge_job, run_job_as_next_daemon


async def merge(home: Home, repository: Path, files: Mapping[str, str | None]) -> MergeReport:
    return await run_job_as_next_daemon(home, await record_merge_job(home, repository, files, "true"))


def begin(folder: Path, *options: str) -> Path:
    git(folder.parent, "init", "-q", *options, str(folder))
    commit(folder, {"README.md": "a repository\n", "shared.txt": "one\n", "other": "other\n"})
    return folder


def plain(folder: Path) -> Path:
    return begin(folder)


def sha256(folder: Path) -> Path:
    return begin(folder, "--object-format=sha256")


def reftable(folder: Path) -> Path:
    if GIT_VERSION < (2, 45):
        pytest.skip("this git knows no reftable")
    return begin(folder, "--ref-format=reftable")


def split_index(folder: Path) -> Path:
    begin(folder)
    git(folder, "config", "core.splitIndex", "true")
    git(folder, "update-index", "--split-index")
    return folder


def sparse(folder: Path) -> Path:
    begin(folder)
    commit(folder, {"away": "x\n"})
    git(folder, "sparse-checkout", "set", "--no-cone", "/*", "!/away")
    return folder


def crlf(folder: Path) -> Path:
    begin(folder)
    git(folder, "config", "core.autocrlf", "true")
    (folder / "shared.txt").unlink()
    git(folder, "reset", "-q", "--hard")
    return folder


def filtered(folder: Path) -> Path:
    begin(folder)
    for side in ("clean", "smudge"):
        git(folder, "config", "--global", f"filter.rot.{side}", "tr a-z n-za-m")
    git(folder, "config", "--global", "filter.rot.required", "true")
    commit(folder, {".gitattributes": "*.txt filter=rot\n"})
    git(folder, "add", "--renormalize", ".")
    git(folder, "commit", "-qm", "filtered")
    return folder


def with_packed_refs(folder: Path) -> Path:
    begin(folder)
    git(folder, "pack-refs", "--all")
    return folder


def separate(folder: Path) -> Path:
    """Return a linked worktree on main. The main worktree has another branch."""
    main = begin(folder.parent / "main")
    git(main, "switch", "-qc", "side")
    git(main, "worktree", "add", "-q", str(folder), "main")
    return folder


KINDS = [plain, sha256, reftable, split_index, sparse, crlf, filtered, with_packed_refs, separate]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_merge_moves_target_and_files_and_keeps_the_users_edit(
    user: Path, home: Home, tmp_path: Path, kind: Callable[[Path], Path]
) -> None:
    here = kind(tmp_path / "here")
    write(here, "other", "edited\n")
    files = {"shared.txt": "2\n", "deep/new.txt": "new\n", "README.md": None}
    report = await merge(home, here, files)
    assert [merged.id for merged in report.merged] == ["a1"], report
    assert report.commit == git(here, "rev-parse", "main")
    assert git(here, "status", "--porcelain") == " M other"
    ends = b"\r\n" if kind is crlf else b"\n"
    after = contents(here)
    assert (after["shared.txt"], after["deep/new.txt"], after["other"]) == (b"2" + ends, b"new" + ends, b"edited\n")
    assert "README.md" not in after
    assert "away" not in after
    assert git(here, "fsck", "--no-dangling") == ""


@pytest.mark.parametrize("bisecting", [False, True])
async def test_a_merge_into_a_branch_without_commits_is_refused(repository: Path, home: Home, bisecting: bool) -> None:
    number = await record_merge_job(home, repository, {"new": "x\n"}, None)
    git(repository, "branch", "-m", "main", "elsewhere")
    git(repository, "symbolic-ref", "HEAD", "refs/heads/main")
    if bisecting:
        git(repository, "bisect", "start", check=False)
    report = await run_job_as_next_daemon(home, number)
    assert report.error == "The branch main no longer exists; name another one in `into`."
    assert git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/main") == ""


async def test_a_target_moves_while_its_user_bisects(repository: Path, home: Home) -> None:
    commit(repository, {"later": "x\n"})
    git(repository, "bisect", "start")
    report = await merge(home, repository, {"new": "x\n"})
    assert [merged.id for merged in report.merged] == ["a1"]
    git(repository, "bisect", "reset")
    assert git(repository, "status", "--porcelain") == ""
    assert (repository / "new").exists()


@pytest.mark.parametrize("kind", [plain, reftable])
async def test_a_cherry_pick_under_way_is_found_in_every_ref_format(
    user: Path, tmp_path: Path, kind: Callable[[Path], Path]
) -> None:
    here = kind(tmp_path / "here")
    git(here, "switch", "-qc", "rival")
    commit(here, {"shared.txt": "theirs\n"})
    git(here, "switch", "-q", "main")
    commit(here, {"shared.txt": "ours\n"})
    git(here, "cherry-pick", "rival", check=False)
    with pytest.raises(CallerError, match="a cherry-pick is in progress"):
        await check_free(str(here / ".git"), "refs/heads/main")
