"""git fails, hangs or is killed while a worktree is created: it is tried again, or nothing has changed."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import everything, put_git
from support.harness import Lead, git, open_lead_in_memory

REAL = shutil.which("git")

#: The first `git worktree add` succeeds, but exits with git's message about a lost race.
ONE_RACE = f"""
case " $* " in *" worktree add "*)
    if mkdir {{0}}/raced; then
        {REAL} "$@"
        echo "fatal: failed to read .git/worktrees/other/commondir: Success" >&2
        exit 128
    fi
esac
"""

ALWAYS = 'case " $* " in *" worktree add "*) echo "fatal: the last words" >&2; exit 128; esac'

#: git is killed once while it writes the files.
KILLED = """
case " $* " in *" reset --quiet --hard "*)
    if mkdir {0}/raced; then
        printf half > "$2/shared.txt"
        kill -9 $$
    fi
esac
"""


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


async def test_a_lost_race_in_git_worktree_add_is_retried(
    near: Lead, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, ONE_RACE.format(tmp_path))
    (first,) = await near.run("echo x > x.txt")
    assert (tmp_path / "raced").exists()
    result = await near.call("get_result", id=first)
    assert (result["state"], result["files_changed"]) == ("succeeded", 1)
    branches = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/forkjoin")
    assert branches == result["branch"] == "forkjoin/a1-echo-x-x-txt"


@pytest.mark.parametrize(("script", "says"), [(ALWAYS, "fatal: the last words"), (KILLED, "exit -9")])
async def test_if_git_fails_no_agent_starts_and_nothing_is_changed(
    near: Lead, repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    before = everything(repository)
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, script.format(tmp_path))
        (first,) = await near.run(f"touch {home.state}/started")
    result = await near.call("get_result", id=first)
    assert (result["state"], says in result["error"]) == ("failed", True)
    assert everything(repository) == before
    assert not (home.state / "started").exists()
    assert list(home.worktrees.glob("*/*")) == []
    (second,) = await near.run("true")
    assert (await near.call("get_result", id=second))["state"] == "succeeded"


async def test_a_locked_user_index_and_hanging_hooks_do_not_delay_agents(near: Lead, repository: Path) -> None:
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-commit", "post-merge"):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nsleep 1000\n")
        hook.chmod(0o755)
    (repository / ".git" / "index.lock").touch()
    (first,) = await near.run("echo x > x.txt")
    assert (await near.call("get_result", id=first))["files_changed"] == 1
    (repository / ".git" / "index.lock").unlink()
    assert (await near.call("merge_worktree", ids=[first]))["merged"]
    await near.call("remove_worktrees", ids=[first])
