"""Calls of git: their environment, their output, refs, and how a hanging git is ended."""

import os
from pathlib import Path

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.core.error import CallerError, GitError
from forkjoin.git import git as asked
from forkjoin.git import git_process
from forkjoin.git.commit_identity import find_fallback_identity
from forkjoin.git.file_names import printable
from forkjoin.git.git_version import require_version
from forkjoin.git.refs import (
    Tip,
    find_branch,
    find_tip,
    find_tips,
    is_ancestor,
    is_branch_name,
    resolve_commit,
    update_refs,
)
from support.branches import commit, put_git, put_hooks
from support.harness import GIVE_UP_S, git, until


async def test_a_call_does_not_see_the_git_variables_around_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere"))
    assert await asked.output(repository, "ls-files") == "README.md\nshared.txt"


async def test_a_folder_without_git_is_not_taken_for_the_repository_around_it(repository: Path) -> None:
    (repository / "folder").mkdir()
    code, _, err = await asked.run(repository / "folder", "status")
    assert code != 0
    assert "not a git repository" in err


async def test_no_hook_runs(repository: Path, tmp_path: Path) -> None:
    put_hooks(repository / ".git" / "hooks", tmp_path / "told")
    await update_refs(repository, [f"create refs/heads/new {git(repository, 'rev-parse', 'HEAD')}"], "why")
    assert not (tmp_path / "told").exists()
    git(repository, "branch", "by-hand")
    assert (tmp_path / "told").exists(), "the hook does work"


async def test_a_bare_repository_is_used_despite_safe_barerepository(repository: Path, tmp_path: Path) -> None:
    git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    git(repository, "config", "--global", "safe.bareRepository", "explicit")
    assert await find_tip(tmp_path / "bare.git", "refs/heads/main") == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["main", "refs/heads/main", "HEAD", "v1", "@"])
async def test_a_name_resolves_to_its_commit(repository: Path, name: str) -> None:
    git(repository, "tag", "-a", "-m", "one", "v1")
    assert await resolve_commit(repository, name) == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name", ["", "none", "--help", "-b", "main:README.md", "a..b", "@{-1}", "a\0b", "\ud800", "é" * 100_000, "x\ny"]
)
async def test_a_name_without_a_commit_resolves_to_none(repository: Path, name: str) -> None:
    assert await resolve_commit(repository, name) is None


async def test_a_tip_is_found_by_the_exact_ref_only(repository: Path) -> None:
    git(repository, "branch", "refs/heads/ghost")
    assert await resolve_commit(repository, "refs/heads/ghost"), "git itself would look further"
    assert await find_tip(repository, "refs/heads/ghost") is None


async def test_missing_branches_have_no_tip(repository: Path) -> None:
    git(repository, "branch", "one")
    commits = {
        "refs/heads/one": git(repository, "rev-parse", "HEAD"),
        "refs/heads/main": commit(repository, {"new": "x"}),
    }
    found = await find_tips(repository, [*commits, "refs/heads/none", "--help"])
    assert found == {ref: Tip(made, git(repository, "rev-parse", f"{made}^{{tree}}")) for ref, made in commits.items()}


async def test_a_branch_is_found_by_its_name_alone(repository: Path) -> None:
    git(repository, "branch", "folder/main")
    git(repository, "tag", "v1")
    assert await find_branch(repository, "main") == "refs/heads/main"
    for name in ("folder", "v1", "HEAD", "-b", "main~0", "a\0b"):
        assert await find_branch(repository, name) is None


async def test_a_symbolic_branch_resolves_to_its_target(repository: Path) -> None:
    git(repository, "symbolic-ref", "refs/heads/master", "refs/heads/main")
    assert await find_branch(repository, "master") == "refs/heads/main"


@pytest.mark.parametrize("name", ["main", "forkjoin/a1-x", "ünï", "(x)", "a.b"])
async def test_valid_branch_names_are_accepted(name: str) -> None:
    assert await is_branch_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-b",
        "--upload-pack=touch X",
        "a..b",
        "x.lock",
        "@{-1}",
        "a b",
        "a\nb",
        "a\0b",
        "\ud800",
        "/a",
        "a/",
        "é" * 9999,
    ],
)
async def test_invalid_branch_names_are_rejected(name: str) -> None:
    assert not await is_branch_name(name)


async def test_several_refs_change_atomically(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    with pytest.raises(GitError, match="refs/heads/main"):
        await update_refs(repository, [f"create refs/heads/new {head}", f"create refs/heads/main {head}"], "why")
    assert git(repository, "branch", "--list", "--format=%(refname:short)") == "main"


async def test_a_new_ref_has_a_reflog_despite_core_logallrefupdates(repository: Path) -> None:
    git(repository, "config", "core.logAllRefUpdates", "false")
    await update_refs(repository, [f"create refs/heads/new {git(repository, 'rev-parse', 'HEAD')}"], "the reason")
    assert git(repository, "log", "--walk-reflogs", "--format=%gs", "new") == "the reason"


async def test_a_configured_identity_is_kept(repository: Path) -> None:
    assert await find_fallback_identity(repository) == {}


async def test_commits_without_a_configured_identity_are_by_forkjoin(repository: Path, user: Path) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    extra = await find_fallback_identity(repository)
    made = await asked.output(repository, "commit-tree", "-m", "x", "HEAD^{tree}", extra=extra)
    assert git(repository, "log", "-1", "--format=%an <%ae> %cn <%ce>", made) == " ".join(
        2 * ["forkjoin <forkjoin@localhost>"]
    )


async def test_an_old_git_is_refused_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_git(tmp_path / "bin", monkeypatch, "echo git version 2.30.2; exit")
    with pytest.raises(CallerError, match=r"git 2\.30\.2 is too old: forkjoin needs 2\.38"):
        await require_version()


async def test_a_missing_git_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CallerError, match="git was not found"):
        await require_version()


async def test_the_output_of_a_git_that_does_not_read_its_stdin_is_returned(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, "exec <&-; echo said; exit 3")
    assert await asked.run(repository, "status", stdin=b"x" * 1_000_000) == (3, b"said\n", "")


#: A git that can't write an object, once.
BEATEN = """
if mkdir {0}/beaten 2>/dev/null; then
    echo error: unable to create temporary file: No such file or directory >&2
    echo fatal: git-write-tree: error building trees >&2
    exit 128
fi
"""


async def test_writing_an_object_is_retried_after_a_gc_deletes_its_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, BEATEN.format(tmp_path))
    written = await asked.output(repository, "hash-object", "-w", "--stdin", stdin=b"content")
    assert (tmp_path / "beaten").exists()
    assert git(repository, "cat-file", "blob", written) == "content"


async def test_a_git_that_hangs_is_ended(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_git(tmp_path / "bin", monkeypatch, f"echo $$ > {tmp_path / 'pid'}; exec sleep 1000")
    monkeypatch.setattr(git_process, "_WRITER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.2)
    for call in (
        asked.output(repository, "add", "."),
        asked.output(repository, "status"),
        asked.read_output(repository, "status", limit=1),
    ):
        with pytest.raises(GitError, match="hung"):
            await call
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


#: A git that says it has begun, goes on once it may, and says that it has ended.
WAITING = "touch {0}/begun; while [ ! -e {0}/go ]; do sleep 0.02; done; touch {0}/ended; exit"


async def test_a_cancelled_call_still_finishes(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, WAITING.format(tmp_path))
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.run, repository, "update-ref")
            await until((tmp_path / "begun").exists)
            tasks.cancel_scope.cancel()
            (tmp_path / "go").touch()
    assert (tmp_path / "ended").exists()


async def test_a_lock_lasts_until_the_git_that_shares_it_ends(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, WAITING.format(tmp_path))
    held = file_lock.take(tmp_path / "lock")
    assert held
    was_held = False
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: asked.run(repository, "status", pass_fds=(held,)))
            await until((tmp_path / "begun").exists)
            os.close(held)  # as it is when its daemon is killed
            was_held = file_lock.is_held(tmp_path / "lock")
            (tmp_path / "go").touch()
    assert was_held
    assert not file_lock.is_held(tmp_path / "lock")


async def test_reading_endless_output_stops_at_the_limit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, "exec yes")
    with anyio.fail_after(GIVE_UP_S):
        assert await asked.read_output(repository, "show", "HEAD:large", limit=1000) == b"y\n" * 500


async def test_reading_less_than_the_limit_reads_all_or_fails(repository: Path) -> None:
    assert await asked.read_output(repository, "show", "HEAD:README.md", limit=1000) == b"a repository\n"
    with pytest.raises(GitError, match="none"):
        await asked.read_output(repository, "show", "HEAD:none", limit=1000)


def test_names_of_any_bytes_are_printable() -> None:
    assert printable(os.fsdecode(b"a\nb\xff.txt")) == "a\\nb\\xff.txt"


async def test_replace_refs_are_ignored(repository: Path) -> None:
    true = git(repository, "rev-parse", "HEAD:README.md")
    (repository / "other").write_text("other\n")
    git(repository, "replace", true, git(repository, "hash-object", "-w", "other"))
    assert git(repository, "cat-file", "blob", true) == "other"
    assert await asked.output(repository, "cat-file", "blob", true) == "a repository"


async def test_grafts_are_ignored(repository: Path) -> None:
    main = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "-q", "-b", "side")
    side = commit(repository, {"side.txt": "x\n"})
    (repository / ".git" / "info" / "grafts").write_text(f"{main} {side}\n")
    git(repository, "checkout", "-q", "main")
    assert not await is_ancestor(repository, side, main)


async def test_a_successful_call_prints_nothing_to_stderr(repository: Path) -> None:
    code, _, said = await asked.run(repository, "log", "-1")
    assert (code, said) == (0, "")


async def test_output_is_utf_8_despite_the_configured_encoding(repository: Path) -> None:
    git(repository, "config", "i18n.logOutputEncoding", "UTF-16")
    git(repository, "config", "i18n.commitEncoding", "ISO-8859-1")
    tree = await asked.output(repository, "rev-parse", "HEAD^{tree}")
    commit = await asked.output(repository, "commit-tree", "-m", "é", tree)
    assert await asked.output(repository, "log", "--format=%H %s", commit, "-1") == f"{commit} é"
    assert "encoding" not in await asked.output(repository, "cat-file", "commit", commit)
