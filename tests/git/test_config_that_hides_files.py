"""No setting that an agent makes hides its work or changes what forkjoin reads from git."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from forkjoin.git import diff, repository
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.changed_refs import read_ref_listing
from forkjoin.git.refs import find_tips
from forkjoin.git.worktrees.checkout import find_checkout
from support.autocommits import leave
from support.branches import Fork, make_fork
from support.harness import git as ask

#: Settings, as `name=value`; `$I` ignores all files, `$A` has filters, line ends and encodings for all files.
_SETTINGS = (
    *("core.ignoreCase=true", "core.precomposeUnicode=true", "core.protectHFS=true", "core.protectNTFS=true"),
    *("core.fileMode=false", "core.symlinks=false", "core.ignoreStat=true", "core.checkStat=minimal"),
    *("core.trustCtime=false", "core.fsmonitor=true", "core.fsmonitor=echo", "core.untrackedCache=true"),
    *("core.preloadIndex=false", "core.splitIndex=true", "index.version=4", "index.sparse=true", "index.skipHash=true"),
    *("feature.manyFiles=true", "feature.experimental=true", "core.excludesFile=$I", "core.attributesFile=$A"),
    *("core.autocrlf=true", "core.autocrlf=input", "core.eol=crlf", "core.safecrlf=true", "core.whitespace=error"),
    *("core.bare=true", "core.worktree=/tmp", "core.sparseCheckout=true", "core.sparseCheckoutCone=false"),
    *("status.showUntrackedFiles=no", "status.relativePaths=true", "status.short=true", "status.branch=false"),
    *("status.renames=copies", "status.showStash=true", "status.submoduleSummary=true", "status.aheadBehind=false"),
    *("diff.ignoreSubmodules=all", "submodule.x.ignore=all", "submodule.active=.", "submodule.recurse=true"),
    *("diff.renames=copies", "diff.noprefix=true", "diff.mnemonicPrefix=true", "diff.relative=true", "diff.context=0"),
    *("diff.external=false", "diff.orderFile=/dev/null", "diff.submodule=log", "diff.wordRegex=.", "attr.tree=HEAD"),
    *("core.quotePath=true", "core.abbrev=4", "core.abbrev=no", "core.commentChar=x", "core.warnAmbiguousRefs=true"),
    *("log.date=iso", "log.decorate=full", "log.showRoot=false", "log.follow=true", "log.diffMerges=on"),
    *("log.abbrevCommit=true", "log.showSignature=true", "format.pretty=oneline", "format.notes=true"),
    *("color.ui=always", "column.ui=always", "i18n.logOutputEncoding=UTF-16", "i18n.commitEncoding=UTF-16"),
    *("core.logAllRefUpdates=false", "core.useReplaceRefs=true", "branch.sort=-refname", "transfer.hideRefs=refs"),
    *("add.ignoreErrors=true", "commit.cleanup=scissors", "alias.status=!false", "safe.directory=", "author.name="),
)

#: What an agent may do besides, in its worktree; `$G` is the common git folder.
_DEEDS = {
    "an include": "printf '[core]\\nexcludesFile = %s\\n' $I > $G/more; git config include.path more",
    "a conditional include": (
        "printf '[core]\\nignoreCase = true\\n' > $G/more; git config includeIf.gitdir:$G/.path more"
    ),
    "the user's excludes file": "git config --global core.excludesFile /nowhere",
    "a replaced commit": "git replace $(git rev-parse HEAD) $(git commit-tree -m x HEAD^{tree})",
    "a replaced blob": "git replace HEAD:shared.txt $(echo x | git hash-object -w --stdin)",
    "a graft": "git rev-parse HEAD > $G/info/grafts",
    "a shallow history": "git rev-parse HEAD > $G/shallow",
    "attributes": "cp $A $G/info/attributes",
    "a sparse checkout": "git sparse-checkout set --no-cone '/*' '!/deep/'",
    "an fsmonitor's index": "git update-index --fsmonitor; git update-index --fsmonitor-valid shared.txt README.md",
    "an untracked cache": "git update-index --force-untracked-cache; git status >&2",
    "a split index": "git update-index --split-index",
}


def _change_files(fork: Fork) -> None:
    """Change a file's content, a mode and a type, and create files."""
    (fork.path / "shared.txt").write_text("one\n2\nthree\nünï\n")
    (fork.path / "README.MD").write_text("new\n")
    (fork.path / "deep").mkdir()
    (fork.path / "deep" / "new ü.txt").write_text("new\n")
    (fork.path / "README.md").chmod(0o755)
    (fork.path / "link").unlink()
    (fork.path / "link").write_text("shared.txt")


async def _read_all(fork: Fork, tip: str) -> object:
    """Return what forkjoin reads of a branch."""
    common_dir, base = fork.common_dir, fork.base
    tree = (await find_tips(common_dir, [f"refs/heads/{fork.branch}"]))[f"refs/heads/{fork.branch}"].tree
    commits = [one.partition(" ")[2] for one in await repository.list_commits(common_dir, base, tip, 9)]
    changes, stat = await changes_between(common_dir, base, tip), await diff.measure_diff(common_dir, base, tip)
    assert await find_checkout(common_dir, f"refs/heads/{fork.branch}") == str(fork.path)
    assert f"{tip} refs/heads/{fork.branch} " in str(await read_ref_listing(common_dir))
    return tree, commits, changes, stat


async def _compare(repository: Path, deed: str, *scopes: str) -> None:
    """Compare two agents with the same work, one of which first runs a script.

    The script runs once for each scope, which replaces SCOPE in it.
    """
    (repository / "link").symlink_to("shared.txt")
    ask(repository, "add", "link")
    ask(repository, "commit", "-qm", "link")
    ask(repository, "config", "extensions.worktreeConfig", "true")
    plain = await make_fork(repository, "a1-plain")
    _change_files(plain)
    before = await leave(plain)
    expected = await _read_all(plain, str(before.tip))
    ignore, attributes = repository.parent / "ignore", repository.parent / "attributes"
    ignore.write_text("*\n")
    attributes.write_text("* filter=x ident\n")
    for scope in scopes:
        fork = await make_fork(repository, f"a2-set{scope}")
        script = f"I={ignore}; A={attributes}; G={fork.common_dir}; {deed.replace('SCOPE', scope)}"
        subprocess.run(["sh", "-e", "-c", script], cwd=fork.path, check=True, capture_output=True)
        _change_files(fork)
        left = await leave(fork)
        assert (left.uncommitted, left.warnings, left.refused) == (before.uncommitted, before.warnings, [])
        assert await _read_all(fork, str(left.tip)) == expected


#: The settings in groups, so that settings with the same key or of the same family are in different groups.
_GROUPS = [_SETTINGS[n::7] for n in range(7)]


@pytest.mark.parametrize(
    "settings", [*_GROUPS, *(pytest.param((setting,), marks=pytest.mark.soak) for setting in _SETTINGS)]
)
async def test_settings_hide_no_work(repository: Path, settings: Sequence[str]) -> None:
    pairs = [setting.partition("=")[::2] for setting in settings]
    script = "; ".join(f'git config SCOPE {name} "{value}"' for name, value in pairs)
    await _compare(repository, script, "--worktree", "--local")


@pytest.mark.parametrize("deed", _DEEDS)
async def test_an_agents_commands_hide_no_work(repository: Path, deed: str) -> None:
    await _compare(repository, _DEEDS[deed], "")


async def test_changes_are_seen_if_the_configuration_marks_files_as_unchanged(repository: Path) -> None:
    ask(repository, "config", "core.ignoreStat", "true")
    fork = await make_fork(repository)
    (fork.path / "shared.txt").write_text("changed\n")
    assert (await leave(fork)).uncommitted == 1
