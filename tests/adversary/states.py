"""Odd states of a repository and of its user's checkout: each is a function that brings a ground into it."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from forkjoin.core.trust_records import Trust, Trusted, digest

from adversary.ground import Ground

State = Callable[[Ground], None]


# -- how a repository is made: one of these


def _plain(ground: Ground, *options: str, name: str = "repository") -> None:
    ground.make(ground.folder / "r" / name, *options)
    ground.settle(ground.folder / "r" / name)


def _shallow(ground: Ground, *options: str) -> None:
    origin = ground.folder / "origin"
    ground.make(origin)
    ground.write(origin, {"second.txt": "second\n"})
    ground.run(origin, "add", ".")
    ground.run(origin, "commit", "-qm", "second")
    where = ground.folder / "r" / "repository"
    ground.run(ground.folder, "clone", "-q", *(options or ("--depth=1",)), f"file://{origin}", str(where))
    ground.run(where, "branch", "release")
    ground.settle(where)


def _alternates(ground: Ground) -> None:
    ground.make(ground.folder / "origin")
    where = ground.folder / "r" / "repository"
    ground.run(ground.folder, "clone", "-q", "--shared", str(ground.folder / "origin"), str(where))
    ground.run(where, "branch", "release")
    ground.settle(where)


def _partial(ground: Ground) -> None:
    ground.make(ground.folder / "seed")
    ground.run(ground.folder / "seed", "config", "uploadpack.allowFilter", "true")
    where = ground.folder / "r" / "repository"
    ground.run(ground.folder, "clone", "-q", "--filter=blob:none", f"file://{ground.folder / 'seed'}", str(where))
    ground.run(where, "branch", "release")
    ground.settle(where)


def _bare(ground: Ground) -> None:
    ground.make(ground.folder / "origin")
    bare, where = ground.folder / "bare.git", ground.folder / "r" / "repository"
    ground.run(ground.folder, "clone", "-q", "--bare", str(ground.folder / "origin"), str(bare))
    ground.run(bare, "worktree", "add", "-q", str(where), "main")
    ground.settle(where)


def _linked(ground: Ground) -> None:
    ground.make(ground.folder / "first")
    ground.run(ground.folder / "first", "checkout", "-q", "--detach")
    ground.run(ground.folder / "first", "worktree", "add", "-q", str(ground.folder / "r" / "repository"), "main")
    ground.settle(ground.folder / "r" / "repository")


def _apart(ground: Ground) -> None:
    """Git itself can't tell where the files are: merges into what is checked out are refused."""
    _plain(ground, f"--separate-git-dir={ground.folder / 'apart.git'}")
    ground.blocks = True


def _elsewhere(ground: Ground) -> None:
    """core.worktree, as the user has it."""
    _plain(ground)
    moved = ground.folder / "r" / "git"
    (ground.repository / ".git").rename(moved)
    ground.run(moved, "--git-dir=.", "config", "core.worktree", str(ground.repository))
    (ground.repository / ".git").write_text(f"gitdir: {moved}\n")
    ground.settle(ground.repository)


def _unborn(ground: Ground) -> None:
    where = ground.folder / "r" / "repository"
    where.mkdir(parents=True)
    ground.run(where, "init", "-q")
    ground.settle(where)
    ground.blocks = True


def _in_bytes(ground: Ground) -> None:
    _plain(ground, name=os.fsdecode(b"r\xff\xfe"))
    ground.blocks = True


MADE: dict[str, State] = {
    "plain": _plain,
    "shallow": _shallow,
    "alternates": _alternates,
    "partial": _partial,
    "bare with worktrees": _bare,
    "linked": _linked,
    "git folder apart": _apart,
    "core.worktree": _elsewhere,
    "unborn": _unborn,
    "a line end in the path": lambda ground: _plain(ground, name="new\nline"),
    "an odd path": lambda ground: _plain(ground, name='-it\'s "$(odd)" é'),
    "a path in bytes": _in_bytes,
    "reftable": lambda ground: _plain(ground, "--ref-format=reftable"),
    "sha256": lambda ground: _plain(ground, "--object-format=sha256"),
    "shared by a group": lambda ground: _plain(ground, "--shared=group"),
}


# -- what is done to it then: any of these


def _config(*pairs: str) -> State:
    def configure(ground: Ground) -> None:
        for pair in pairs:
            name, _, value = pair.partition("=")
            ground.run(ground.repository, "config", name, value.replace("@CANARY@", str(ground.canary)))

    return configure


def _git(*commands: str) -> State:
    """Run these commands of git in the checkout, where they may fail, as a rebase does that stops."""

    def run(ground: Ground) -> None:
        for command in commands:
            ground.run(ground.repository, *command.split(), check=False)

    return run


def _commit(ground: Ground, files: dict[str, str], *more: str) -> None:
    ground.write(ground.repository, files)
    add = ("-c", "core.ignoreCase=false", "add", "--sparse")  # whatever state it is in already
    ground.run(ground.repository, *add, *(more or ("--all",)))
    ground.run(ground.repository, "commit", "-qm", "odd", "--allow-empty")
    ground.run(ground.repository, "branch", "-f", "release", "HEAD", check=False)


def _dirty(ground: Ground) -> None:
    where = ground.repository
    names = ("staged", "both", "unstaged", "deleted")
    _commit(ground, {f"{name}.txt": "as committed\n" for name in names} | {".gitignore": "*.log\n"})
    ground.write(where, {"staged.txt": "staged\n", "both.txt": "staged\n", "new.txt": "new\n"})
    ground.run(where, "add", "--all")
    ground.write(where, {"both.txt": "not staged\n", "unstaged.txt": "not staged\n", "x.log": "ignored\n"})
    ground.write(where, {"notes/untracked.txt": "untracked\n"})
    (where / "deleted.txt").unlink()


def _stash(ground: Ground) -> None:
    ground.write(ground.repository, {"stashed.txt": "stashed\n", "README.md": "stashed too\n"})
    ground.run(ground.repository, "stash", "-q", "-u", check=False)


def _stashes(ground: Ground) -> None:
    """Two, of which a reflog alone has the first."""
    for name in ("one", "two"):
        ground.write(ground.repository, {f"stashed-{name}.txt": "stashed\n"})
        ground.run(ground.repository, "stash", "-q", "-u", check=False)


def _case_twins(ground: Ground) -> None:
    _commit(ground, {"readme.md": "another\n", "A/b.txt": "another\n", "a/B.txt": "another\n"})
    ground.run(ground.repository, "config", "core.ignoreCase", "true")


def _ignored(ground: Ground) -> None:
    ignored, more = ground.user / "ignored", ground.user / "more-ignored"
    ignored.write_text("*.log\nout/\n")
    more.write_text(f"[core]\nexcludesFile = {ignored}\n")
    ground.run(ground.repository, "config", "include.path", str(more))
    ground.write(ground.repository, {"x.log": "ignored\n", "out/x": "ignored\n"})


def _sparse(ground: Ground, *patterns: str) -> None:
    _commit(ground, {f"{folder}/x.txt": "x\n" for folder in ("inside", "apart", "apart/deep")})
    ground.run(ground.repository, "sparse-checkout", "set", *(patterns or ("--cone", "inside")))


def _replaced(ground: Ground) -> None:
    where = ground.repository
    other = ground.run(where, "hash-object", "-w", "--stdin", stdin="replaced\n")
    ground.run(where, "replace", ground.run(where, "rev-parse", "main:README.md"), other)
    tree = ground.run(where, "mktree")
    ground.run(where, "replace", "main", ground.run(where, "commit-tree", tree, "-m", "instead"))


def _grafted(ground: Ground) -> None:
    _commit(ground, {"second.txt": "second\n"})
    (ground.common / "info").mkdir(exist_ok=True)
    (ground.common / "info" / "grafts").write_text(ground.run(ground.repository, "rev-parse", "main") + "\n")


def _submodule(ground: Ground) -> None:
    ground.make(ground.folder / "library")
    ground.run(ground.repository, "submodule", "-q", "add", str(ground.folder / "library"), "sub")
    _commit(ground, {})


def _line_ends(ground: Ground) -> None:
    (ground.repository / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    (ground.repository / "more.txt").write_bytes(b"c\r\n")
    _commit(ground, {})
    _commit(ground, {".gitattributes": "*.txt text\n"}, ".gitattributes")


def _filtered(ground: Ground) -> None:
    """A filter of the user's own, as git-lfs and git-crypt are."""
    for kind in ("clean", "smudge"):
        ground.run(ground.repository, "config", f"filter.rot.{kind}", "tr a-zA-Z n-za-mN-ZA-M")
    ground.run(ground.repository, "config", "filter.rot.required", "true")
    _commit(ground, {".gitattributes": "*.secret filter=rot\n", "one.secret": "hello\n"})


def _attributes(ground: Ground) -> None:
    text = "*.txt merge=union\n*.md ident export-subst\n*.utf working-tree-encoding=UTF-16LE\n"
    _commit(ground, {".gitattributes": text, "x.utf": "x\0y\0"})


def _hooks(ground: Ground) -> None:
    """Hooks of the user's, which refuse all."""
    for name in ("pre-commit", "commit-msg", "post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        hook = ground.common / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n[ -n \"$FORKJOIN_MARK\" ] && exit 0\necho {name} >> '{ground.ran}'\nexit 1\n")
        hook.chmod(0o755)


def _locked(ground: Ground) -> None:
    (ground.git_dir / "index.lock").touch()
    ground.blocks = True


def _rebasing(ground: Ground) -> None:
    _commit(ground, {"second.txt": "second\n"})
    ground.run(ground.repository, "checkout", "-q", "-b", "topic", "HEAD~1")
    _commit_only(ground, {"second.txt": "another\n"})
    ground.run(ground.repository, "rebase", "-q", "main", check=False)


def _commit_only(ground: Ground, files: dict[str, str]) -> None:
    ground.write(ground.repository, files)
    ground.run(ground.repository, "add", "--all")
    ground.run(ground.repository, "commit", "-qm", "topic")


def _merging(ground: Ground) -> None:
    ground.run(ground.repository, "checkout", "-q", "-b", "topic")
    _commit_only(ground, {"shared.txt": "of topic\n"})
    ground.run(ground.repository, "checkout", "-q", "main")
    _commit_only(ground, {"shared.txt": "of main\n"})
    ground.run(ground.repository, "merge", "-q", "topic", check=False)
    ground.blocks = True


def _odd_names(ground: Ground) -> None:
    raw = os.fsencode(ground.repository)
    for name in (b"caf\xe9", b"new\nline", b"-rf", b" ", b":(glob)x", b"tab\there", b'"quoted"', b"README.MD"):
        Path(os.fsdecode(os.path.join(raw, name))).write_text("odd\n")
    _commit(ground, {})
    Path(os.fsdecode(os.path.join(raw, b"untracked\xff\n"))).write_text("odd\n")


def _pipes(ground: Ground) -> None:
    os.mkfifo(ground.repository / "pipe")
    (ground.repository / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{os.open(ground.repository, os.O_RDONLY)}/socket")


def _flags(ground: Ground) -> None:
    where = ground.repository
    ground.write(where, {"intended.txt": "intended\n", "README.md": "assumed\n", "sub.txt": "skipped\n"})
    ground.run(where, "add", "-N", "intended.txt")
    ground.run(where, "update-index", "--assume-unchanged", "README.md")
    ground.run(where, "update-index", "--skip-worktree", "sub.txt")
    ground.run(where, "update-index", "--split-index", "--untracked-cache", "--index-version=4", check=False)


def _odd_refs(ground: Ground) -> None:
    where = ground.repository
    ground.run(where, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    for ref in ("refs/tags/main", "refs/heads/heads/main", "refs/heads/refs/heads/main", "refs/forkjoin-like/x"):
        ground.run(where, "update-ref", ref, "HEAD")
    ground.run(where, "pack-refs", "--all")


def _trunk(ground: Ground) -> None:
    """Main is another name of the user's for trunk."""
    ground.run(ground.repository, "branch", "trunk")
    ground.run(ground.repository, "symbolic-ref", "refs/heads/main", "refs/heads/trunk")
    ground.blocks = True


def _verified(ground: Ground) -> None:
    text = 'verify = "! ls broken-* 2> /dev/null"\n'
    _commit(ground, {"forkjoin.toml": text})

    def trust() -> None:
        trusted = Trusted(files=frozenset({digest(text.encode())}))
        Trust(ground.home / "trust").write(str(ground.common.resolve()), trusted)

    ground.trust, ground.verify = trust, True


def _nobody(ground: Ground) -> None:
    told = (ground.user / ".gitconfig").read_text()
    named = "name = Test\nemail = test@example.com\n"
    (ground.user / ".gitconfig").write_text(told.replace(named, "useConfigOnly = true\n"))


def _indexed(ground: Ground) -> None:
    ground.run(ground.repository, "repack", "-qadb")
    ground.run(ground.repository, "commit-graph", "write", "--reachable")
    ground.run(ground.repository, "multi-pack-index", "write")


def _in_the_way(ground: Ground) -> None:
    """Untracked files of the user's where agents add theirs."""
    ground.write(ground.repository, {"t1.txt": "the user's\n", "t2.txt": "the user's\n"})


def _stand(*parts: str) -> State:
    def stand(ground: Ground) -> None:
        ground.lead_at = ground.repository.joinpath(*parts)

    return stand


def _stand_in_module(ground: Ground) -> None:
    _submodule(ground)
    ground.settle(ground.repository / "sub")
    ground.lead_at = ground.common
    ground.blocks = True


def _stand_in_git(ground: Ground) -> None:
    ground.lead_at = ground.common
    ground.blocks = True


def _included(ground: Ground) -> None:
    more = ground.user / "more"
    more.write_text(f"[core]\nfsmonitor = {ground.canary}\n[user]\nname = Included\n")
    ground.run(ground.repository, "config", "include.path", str(more))


def _read_only(ground: Ground) -> None:
    _commit(ground, {"closed/x.txt": "x\n"})
    (ground.repository / "closed").chmod(0o555)


def _subtree_of_other(ground: Ground) -> None:
    """A repository of the user's, ignored, within the checkout."""
    _commit(ground, {".gitignore": "vendor/\n"})
    subprocess.run(["cp", "-r", str(ground.other), str(ground.repository / "vendor")], check=True)


DONE: dict[str, State] = {
    "dirty": _dirty,
    "stash": _stash,
    "sparse": _sparse,
    "sparse without cones": lambda ground: _sparse(ground, "--no-cone", "/*", "!/apart/"),
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
