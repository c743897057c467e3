"""Unusual states of a repository and its user's checkout: functions that bring a repository into the state."""

import os
import socket
import subprocess
from pathlib import Path

from forkjoin.core.trust_records import Trust, Trusted, digest

from adversary.repository_kinds import State
from adversary.sandbox import Sandbox


def _config(*pairs: str) -> State:
    def configure(sandbox: Sandbox) -> None:
        for pair in pairs:
            name, _, value = pair.partition("=")
            sandbox.run(sandbox.repository, "config", name, value.replace("@CANARY@", str(sandbox.canary)))

    return configure


def _git(*commands: str) -> State:
    """Return a state that runs git commands in the checkout.

    A command may fail, like a rebase that stops.
    """

    def run(sandbox: Sandbox) -> None:
        for command in commands:
            sandbox.run(sandbox.repository, *command.split(), check=False)

    return run


def _commit(sandbox: Sandbox, files: dict[str, str], *more: str) -> None:
    sandbox.write(sandbox.repository, files)
    add = ("-c", "core.ignoreCase=false", "add", "--sparse")  # in a sparse checkout, too
    sandbox.run(sandbox.repository, *add, *(more or ("--all",)))
    sandbox.run(sandbox.repository, "commit", "-qm", "odd", "--allow-empty")
    sandbox.run(sandbox.repository, "branch", "-f", "release", "HEAD", check=False)


def _dirty(sandbox: Sandbox) -> None:
    where = sandbox.repository
    names = ("staged", "both", "unstaged", "deleted")
    _commit(sandbox, {f"{name}.txt": "as committed\n" for name in names} | {".gitignore": "*.log\n"})
    sandbox.write(where, {"staged.txt": "staged\n", "both.txt": "staged\n", "new.txt": "new\n"})
    sandbox.run(where, "add", "--all")
    sandbox.write(where, {"both.txt": "not staged\n", "unstaged.txt": "not staged\n", "x.log": "ignored\n"})
    sandbox.write(where, {"notes/untracked.txt": "untracked\n"})
    (where / "deleted.txt").unlink()


def _stash(sandbox: Sandbox) -> None:
    sandbox.write(sandbox.repository, {"stashed.txt": "stashed\n", "README.md": "stashed too\n"})
    sandbox.run(sandbox.repository, "stash", "-q", "-u", check=False)


def _stashes(sandbox: Sandbox) -> None:
    """Make two stashes. Only a reflog has the first one."""
    for name in ("one", "two"):
        sandbox.write(sandbox.repository, {f"stashed-{name}.txt": "stashed\n"})
        sandbox.run(sandbox.repository, "stash", "-q", "-u", check=False)


def _case_twins(sandbox: Sandbox) -> None:
    _commit(sandbox, {"readme.md": "another\n", "A/b.txt": "another\n", "a/B.txt": "another\n"})
    sandbox.run(sandbox.repository, "config", "core.ignoreCase", "true")


def _ignored(sandbox: Sandbox) -> None:
    ignored, more = sandbox.user / "ignored", sandbox.user / "more-ignored"
    ignored.write_text("*.log\nout/\n")
    more.write_text(f"[core]\nexcludesFile = {ignored}\n")
    sandbox.run(sandbox.repository, "config", "include.path", str(more))
    sandbox.write(sandbox.repository, {"x.log": "ignored\n", "out/x": "ignored\n"})


def _sparse(sandbox: Sandbox, *patterns: str) -> None:
    _commit(sandbox, {f"{folder}/x.txt": "x\n" for folder in ("inside", "apart", "apart/deep")})
    sandbox.run(sandbox.repository, "sparse-checkout", "set", *(patterns or ("--cone", "inside")))


def _replaced(sandbox: Sandbox) -> None:
    where = sandbox.repository
    other = sandbox.run(where, "hash-object", "-w", "--stdin", stdin="replaced\n")
    sandbox.run(where, "replace", sandbox.run(where, "rev-parse", "main:README.md"), other)
    tree = sandbox.run(where, "mktree")
    sandbox.run(where, "replace", "main", sandbox.run(where, "commit-tree", tree, "-m", "instead"))


def _grafted(sandbox: Sandbox) -> None:
    _commit(sandbox, {"second.txt": "second\n"})
    (sandbox.common / "info").mkdir(exist_ok=True)
    (sandbox.common / "info" / "grafts").write_text(sandbox.run(sandbox.repository, "rev-parse", "main") + "\n")


def _submodule(sandbox: Sandbox) -> None:
    sandbox.make(sandbox.folder / "library")
    sandbox.run(sandbox.repository, "submodule", "-q", "add", str(sandbox.folder / "library"), "sub")
    _commit(sandbox, {})


def _line_ends(sandbox: Sandbox) -> None:
    (sandbox.repository / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    (sandbox.repository / "more.txt").write_bytes(b"c\r\n")
    _commit(sandbox, {})
    _commit(sandbox, {".gitattributes": "*.txt text\n"}, ".gitattributes")


def _filtered(sandbox: Sandbox) -> None:
    """Configure a filter of the user, like git-lfs or git-crypt."""
    for kind in ("clean", "smudge"):
        sandbox.run(sandbox.repository, "config", f"filter.rot.{kind}", "tr a-zA-Z n-za-mN-ZA-M")
    sandbox.run(sandbox.repository, "config", "filter.rot.required", "true")
    _commit(sandbox, {".gitattributes": "*.secret filter=rot\n", "one.secret": "hello\n"})


def _attributes(sandbox: Sandbox) -> None:
    text = "*.txt merge=union\n*.md ident export-subst\n*.utf working-tree-encoding=UTF-16LE\n"
    _commit(sandbox, {".gitattributes": text, "x.utf": "x\0y\0"})


def _hooks(sandbox: Sandbox) -> None:
    """Install hooks of the user.

    They succeed when an agent runs them; otherwise they log the run and fail.
    """
    for name in ("pre-commit", "commit-msg", "post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        hook = sandbox.common / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n[ -n \"$FORKJOIN_MARK\" ] && exit 0\necho {name} >> '{sandbox.ran}'\nexit 1\n")
        hook.chmod(0o755)


def _locked(sandbox: Sandbox) -> None:
    (sandbox.git_dir / "index.lock").touch()
    sandbox.blocks = True


def _rebasing(sandbox: Sandbox) -> None:
    _commit(sandbox, {"second.txt": "second\n"})
    sandbox.run(sandbox.repository, "checkout", "-q", "-b", "topic", "HEAD~1")
    _commit_only(sandbox, {"second.txt": "another\n"})
    sandbox.run(sandbox.repository, "rebase", "-q", "main", check=False)


def _commit_only(sandbox: Sandbox, files: dict[str, str]) -> None:
    sandbox.write(sandbox.repository, files)
    sandbox.run(sandbox.repository, "add", "--all")
    sandbox.run(sandbox.repository, "commit", "-qm", "topic")


def _merging(sandbox: Sandbox) -> None:
    sandbox.run(sandbox.repository, "checkout", "-q", "-b", "topic")
    _commit_only(sandbox, {"shared.txt": "of topic\n"})
    sandbox.run(sandbox.repository, "checkout", "-q", "main")
    _commit_only(sandbox, {"shared.txt": "of main\n"})
    sandbox.run(sandbox.repository, "merge", "-q", "topic", check=False)
    sandbox.blocks = True


def _odd_names(sandbox: Sandbox) -> None:
    raw = os.fsencode(sandbox.repository)
    for name in (b"caf\xe9", b"new\nline", b"-rf", b" ", b":(glob)x", b"tab\there", b'"quoted"', b"README.MD"):
        Path(os.fsdecode(os.path.join(raw, name))).write_text("odd\n")
    _commit(sandbox, {})
    Path(os.fsdecode(os.path.join(raw, b"untracked\xff\n"))).write_text("odd\n")


def _pipes(sandbox: Sandbox) -> None:
    os.mkfifo(sandbox.repository / "pipe")
    (sandbox.repository / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{os.open(sandbox.repository, os.O_RDONLY)}/socket")


def _flags(sandbox: Sandbox) -> None:
    where = sandbox.repository
    sandbox.write(where, {"intended.txt": "intended\n", "README.md": "assumed\n", "sub.txt": "skipped\n"})
    sandbox.run(where, "add", "-N", "intended.txt")
    sandbox.run(where, "update-index", "--assume-unchanged", "README.md")
    sandbox.run(where, "update-index", "--skip-worktree", "sub.txt")
    sandbox.run(where, "update-index", "--split-index", "--untracked-cache", "--index-version=4", check=False)


def _odd_refs(sandbox: Sandbox) -> None:
    where = sandbox.repository
    sandbox.run(where, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    for ref in ("refs/tags/main", "refs/heads/heads/main", "refs/heads/refs/heads/main", "refs/forkjoin-like/x"):
        sandbox.run(where, "update-ref", ref, "HEAD")
    sandbox.run(where, "pack-refs", "--all")


def _trunk(sandbox: Sandbox) -> None:
    """Make main a symbolic ref to trunk."""
    sandbox.run(sandbox.repository, "branch", "trunk")
    sandbox.run(sandbox.repository, "symbolic-ref", "refs/heads/main", "refs/heads/trunk")
    sandbox.blocks = True


def _verified(sandbox: Sandbox) -> None:
    text = 'verify = "! ls broken-* 2> /dev/null"\n'
    _commit(sandbox, {"forkjoin.toml": text})

    def trust() -> None:
        trusted = Trusted(files=frozenset({digest(text.encode())}))
        Trust(sandbox.home / "trust").write(str(sandbox.common.resolve()), trusted)

    sandbox.trust, sandbox.verify = trust, True


def _nobody(sandbox: Sandbox) -> None:
    config = (sandbox.user / ".gitconfig").read_text()
    identity = "name = Test\nemail = test@example.com\n"
    (sandbox.user / ".gitconfig").write_text(config.replace(identity, "useConfigOnly = true\n"))


def _indexed(sandbox: Sandbox) -> None:
    sandbox.run(sandbox.repository, "repack", "-qadb")
    sandbox.run(sandbox.repository, "commit-graph", "write", "--reachable")
    sandbox.run(sandbox.repository, "multi-pack-index", "write")


def _in_the_way(sandbox: Sandbox) -> None:
    """Write untracked files of the user with the names of agents' files."""
    sandbox.write(sandbox.repository, {"t1.txt": "the user's\n", "t2.txt": "the user's\n"})


def _stand(*parts: str) -> State:
    def stand(sandbox: Sandbox) -> None:
        sandbox.lead_at = sandbox.repository.joinpath(*parts)

    return stand


def _stand_in_module(sandbox: Sandbox) -> None:
    _submodule(sandbox)
    sandbox.settle(sandbox.repository / "sub")
    sandbox.lead_at = sandbox.common
    sandbox.blocks = True


def _stand_in_git(sandbox: Sandbox) -> None:
    sandbox.lead_at = sandbox.common
    sandbox.blocks = True


def _included(sandbox: Sandbox) -> None:
    more = sandbox.user / "more"
    more.write_text(f"[core]\nfsmonitor = {sandbox.canary}\n[user]\nname = Included\n")
    sandbox.run(sandbox.repository, "config", "include.path", str(more))


def _read_only(sandbox: Sandbox) -> None:
    _commit(sandbox, {"closed/x.txt": "x\n"})
    (sandbox.repository / "closed").chmod(0o555)


def _subtree_of_other(sandbox: Sandbox) -> None:
    """Put an ignored repository of the user inside the checkout."""
    _commit(sandbox, {".gitignore": "vendor/\n"})
    subprocess.run(["cp", "-r", str(sandbox.other), str(sandbox.repository / "vendor")], check=True)


#: The states by name. Each history uses any number of them.
DONE: dict[str, State] = {
    "dirty": _dirty,
    "stash": _stash,
    "sparse": _sparse,
    "sparse without cones": lambda sandbox: _sparse(sandbox, "--no-cone", "/*", "!/apart/"),
    "replace refs": _replaced,
    "grafts": _grafted,
    "submodule": _submodule,
    "line ends": _line_ends,
    "filters": _filtered,
    "attributes": _attributes,
    "hooks": _hooks,
    "fsmonitor": _config("core.fsmonitor=@CANARY@", "core.untrackedCache=true"),
    "include": _included,
    "index.lock": _locked,
    "rebasing": _rebasing,
    "merging": _merging,
    "bisecting": _git("commit -q --allow-empty -m second", "bisect start -q HEAD HEAD~1"),
    "detached": _git("checkout -q --detach"),
    "on release": _git("checkout -q release"),
    "odd names": _odd_names,
    "pipes": _pipes,
    "flags": _flags,
    "odd refs": _odd_refs,
    "main stands for trunk": _trunk,
    "refs of worktrees": _git("update-ref refs/worktree/saved HEAD", "update-ref refs/bisect/bad HEAD"),
    "its own remote": _git("remote add self .", "fetch -q self"),
    "stashes": _stashes,
    "case twins": _case_twins,
    "encodings": _config("i18n.commitEncoding=UTF-16", "i18n.logOutputEncoding=ISO-8859-1", "gui.encoding=UTF-16"),
    "ignores by an included file": _ignored,
    "a tag called HEAD": _git("update-ref refs/tags/HEAD HEAD"),
    "a branch called HEAD": _git("update-ref refs/heads/HEAD HEAD"),
    "a verify": _verified,
    "nobody": _nobody,
    "indexed": _indexed,
    "in the way": _in_the_way,
    "in a folder": _stand("a"),
    "in the git folder": _stand_in_git,
    "in a module": _stand_in_module,
    "read-only": _read_only,
    "a repository within": _subtree_of_other,
    "odd output": _config(
        "color.ui=always", "core.quotePath=true", "core.abbrev=4", "diff.noprefix=true", "log.showSignature=true",
        "status.branch=true", "diff.renames=copies", "merge.ff=only", "merge.conflictStyle=zdiff3",
        "diff.ignoreSubmodules=all", "log.decorate=full", "format.pretty=oneline", "core.commentChar=auto",
    ),
    "odd files": _config("core.fileMode=false", "core.symlinks=false", "core.ignoreCase=true", "core.autocrlf=input"),
    "no reflogs": _config("core.logAllRefUpdates=false"),
    "many files": _config("feature.manyFiles=true", "feature.experimental=true", "index.threads=1"),
    "relative worktrees": _config("worktree.useRelativePaths=true"),
    "configured worktrees": _config("extensions.worktreeConfig=true", "push.default=nothing"),
}  # fmt: skip
