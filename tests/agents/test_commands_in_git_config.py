"""Commands that an agent writes into the shared git configuration: forkjoin's git calls run none of them."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit, put_hooks
from support.harness import git, open_lead_in_memory

#: Keys whose value is a command. The test's commands leave a file named for the key, and pass their input on.
KEYS = [
    *("filter.ev.clean", "filter.ev.smudge", "merge.ev.driver", "diff.ev.command", "diff.ev.textconv", "diff.external"),
    *("core.fsmonitor", "core.sshCommand", "core.editor", "core.pager", "core.askPass", "core.gitProxy"),
    *("core.alternateRefsCommand", "gpg.program", "gpg.ssh.program", "credential.helper", "uploadpack.packObjectsHook"),
    *("sequence.editor", "submodule.sub.update", "filter.of-config.clean", "filter.of-config.smudge"),
]
FILTERS = "*.inc filter=of-include\n*.wt filter=of-worktree\n*.pr filter=of-process\n*.if filter=of-condition\n"
ATTRIBUTES = f"* filter=ev merge=ev diff=ev\n{FILTERS}"


def attack(traces: Path, hooks: Path) -> str:
    """Return a script that leaves uncommitted work and configures commands."""
    common = "$(git rev-parse --path-format=absolute --git-common-dir)"
    set_ = f'git config -f "{common}/config"'
    lines = [f"{set_} {key} '{_say(traces, key)}'" for key in KEYS]
    lines += [
        f"printf '%s' '{ATTRIBUTES}' > .gitattributes; cp .gitattributes {traces.parent}/attributes",
        "for end in txt inc wt pr if; do echo x > new.$end; done; sed -i s/one/ONE/ shared.txt",
        f"{set_} core.attributesFile {traces.parent}/attributes; {set_} core.hooksPath {hooks}",
        f"{set_} commit.gpgSign true; {set_} log.showSignature true; {set_} merge.renormalize true",
        f"{set_} filter.of-process.process '{_say(traces, 'process')}; false'; {set_} filter.of-process.required true",
        f"git config -f {traces.parent}/included filter.of-include.clean '{_say(traces, 'include')}'",
        f"git config -f {traces.parent}/conditional filter.of-condition.clean '{_say(traces, 'condition')}'",
        f"{set_} 'includeIf.gitdir:**/worktrees/*.path' {traces.parent}/conditional",
        f"{set_} include.path {traces.parent}/included; {set_} extensions.worktreeConfig true",
        f"git config --worktree filter.of-worktree.clean '{_say(traces, 'worktree')}'",
        # a nested repository, whose configuration a `git status` outside of it would use
        "git init -q sub; cd sub; echo x > f; git add f; git -c user.name=x -c user.email=x commit -qm x",
        f"git config filter.of-sub.clean '{_say(traces, 'sub')}'; echo '* filter=of-sub' > .git/info/attributes; cd ..",
        "git update-index --add --cacheinfo 160000,$(git -C sub rev-parse HEAD),sub",
        f"rm -rf {traces}/*; touch sub/f",
    ]
    return "\n".join(lines)


def _say(traces: Path, key: str) -> str:
    return f"touch {traces}/{key}; cat"


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


async def test_commands_in_configuration_that_an_agent_wrote_are_not_run_but_reported(
    repository: Path, home: Home, traces: Path, tmp_path: Path
) -> None:
    put_hooks(tmp_path / "hooks", tmp_path / "traces" / "hook")
    put_hooks(repository / ".git" / "hooks", tmp_path / "traces" / "hook")
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run(attack(traces, tmp_path / "hooks"))
        (second,) = await lead.run(
            "sed -i s/three/THREE/ shared.txt; echo y > other.inc; echo y > other.if", base="main"
        )
        (third,) = await lead.spawn(
            f"echo z > running.txt; echo z >> README.md; until test -e {home.state}/go; do sleep 0.02; done"
        )
        while "running.txt" not in await lead.call("read_diff", id=third):
            pass
        (home.state / "go").touch()
        await lead.call("wait_agents", ids=[third])
        for id_ in (first, second):
            await lead.call("read_diff", id=id_)
        result = await lead.call("get_result", id=second)
        assert [w for w in result["warnings"] if "filter.ev.clean" in w and "merge.ev.driver" in w]
        assert "filter.ev.clean" in str((await lead.call("get_status"))["trouble"])
        await lead.call("merge_worktree", ids=[first, second], dry_run=True)
        landed = await lead.call("merge_worktree", ids=[first, second, third], verify="test -e new.txt")
        assert [agent["id"] for agent in landed["merged"]] == [first, second, third]
        await lead.call("remove_worktrees", ids=[second, third])
        assert list(traces.iterdir()) == []
    assert (repository / "shared.txt").read_text() == "ONE\ntwo\nTHREE\n"
    (repository / "new.txt").write_text("by hand\n")
    git(repository, "add", "new.txt", check=False)
    git(repository, "branch", "by-hand")
    assert {"filter.ev.clean", "core.fsmonitor", "hook"} <= {file.name for file in traces.iterdir()}, (
        "the commands work"
    )


async def test_missing_objects_are_not_fetched_from_a_remote_that_an_agent_configured(
    repository: Path, home: Home, traces: Path
) -> None:
    missing = "0123456789012345678901234567890123456789"
    fetch = "git config protocol.ext.allow always; git config remote.evil.promisor true"
    partial = "git config extensions.partialClone evil; git config core.repositoryFormatVersion 1"
    url = f"git config remote.evil.url 'ext::sh -c touch% {traces}/fetched'"
    stage = f"git update-index --add --cacheinfo 100644,{missing},gone; git update-index --skip-worktree gone"
    commit_ = "git update-ref HEAD $(git commit-tree -p HEAD -m x $(git write-tree --missing-ok))"
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run(f"{stage}; {commit_}; {fetch}; {partial}; {url}")
        await lead.call("merge_worktree", ids=[first])
        await lead.call("read_diff", id=first)
    assert list(traces.iterdir()) == []
    git(repository, "cat-file", "-p", missing, check=False)
    assert list(traces.iterdir()) != [], "the command works"


async def test_the_users_own_filters_are_run(repository: Path, home: Home) -> None:
    for where, name in (("--global", "up"), ("--local", "down")):
        git(repository, "config", where, f"filter.{name}.clean", "tr a-z A-Z")
        git(repository, "config", where, f"filter.{name}.smudge", "tr A-Z a-z")
        git(repository, "config", where, f"filter.{name}.required", "true")
    commit(repository, {".gitattributes": "*.up filter=up\n*.down filter=down\n", "old.up": "old\n"})
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run(
            "cat old.up; echo new > new.up; echo new > new.down; git config filter.up.clean 'tr a-z _'"
        )
        result = await lead.call("get_result", id=first)
        (second,) = await lead.run("echo newer > newer.up")
        branches = [(await lead.call("get_result", id=id_))["branch"] for id_ in (first, second)]
    assert result["output"] == "old\n"
    names = [(branches[0], "new.up"), (branches[0], "new.down"), (branches[1], "newer.up")]
    assert [git(repository, "cat-file", "blob", f"{branch}:{name}") for branch, name in names] == [
        "NEW",
        "NEW",
        "NEWER",
    ]
