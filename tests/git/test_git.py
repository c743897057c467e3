"""Calls of git: their environment, their output and the objects that they see."""

from pathlib import Path

import pytest
from forkjoin.git import git as asked
from forkjoin.git.refs import (
    find_tip,
    is_ancestor,
    update_refs,
)
from support.branches import commit, put_hooks
from support.harness import git


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
