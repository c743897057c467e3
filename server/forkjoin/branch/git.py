"""How git is called: one function, and a small one for each question.

Every call strips `GIT_*` from the environment, prompts for nothing, takes no optional lock in the user's checkout, and
runs neither a hook nor a file-system monitor. What comes from outside stands behind `--`, or is a full ref or an object
id that git itself resolved.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import anyio

from forkjoin.error import CallerError, GitError

#: The oldest git with `merge-tree --write-tree`.
OLDEST_GIT = (2, 38)

#: A git that takes longer than this hangs, on a lock or on a network file system.
_GIVE_UP_S = 600

_QUIET = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "commit.gpgSign=false"),
    *("-c", "maintenance.auto=false"),
    *("-c", "gc.auto=0"),
    *("-c", "diff.autoRefreshIndex=false"),
)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment, made safe for git."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(extra or {})}


async def run(
    where: str | Path, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None
) -> tuple[int, bytes, str]:
    """git's exit code, stdout and stderr.

    A call that was begun is let finish, whatever is cancelled around it: a git that is killed leaves its locks behind.
    """
    argv = ["git", "-C", str(where), *_QUIET, *arguments]
    with anyio.fail_after(_GIVE_UP_S, shield=True):
        done = await anyio.run_process(argv, input=stdin or b"", check=False, env=environment(extra))
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


async def git(
    where: str | Path, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None
) -> str:
    """git's stdout, without the line end after it.

    Raises:
        GitError: It exited with another code than 0.
    """
    code, out, err = await run(where, *arguments, stdin=stdin, extra=extra)
    if code != 0:
        raise GitError(arguments, code, err)
    return os.fsdecode(out).removesuffix("\n")


async def version() -> tuple[int, ...]:
    """git's version as numbers."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", await git(".", "version"))
    return tuple(int(part) for part in found.groups(default="0")) if found else (0,)


async def require_version() -> None:
    """Check that git is young enough.

    Raises:
        CallerError: It is older than `OLDEST_GIT`, or missing.
    """
    try:
        found = await version()
    except FileNotFoundError:
        raise CallerError("git was not found in PATH; install git 2.38 or newer") from None
    if found < OLDEST_GIT:
        raise CallerError(f"git {'.'.join(map(str, found))} is too old: forkjoin needs 2.38 or newer (git merge-tree)")


async def resolve(where: str | Path, revision: str) -> str | None:
    """The commit that a name, tag or abbreviation means; none where it means none."""
    code, out, _ = await run(where, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return out.decode().strip() if code == 0 else None


async def tree_of(where: str | Path, commit: str) -> str:
    return await git(where, "rev-parse", "--verify", f"{commit}^{{tree}}")


async def tip(repository: str | Path, ref: str) -> str | None:
    """The commit that a full ref name points to."""
    return await resolve(repository, ref) if ref.startswith("refs/") else None


async def is_ancestor(repository: str | Path, old: str, new: str) -> bool:
    return (await run(repository, "merge-base", "--is-ancestor", old, new))[0] == 0


async def is_branch_name(name: str) -> bool:
    """Whether git would take this for a branch (git-check-ref-format(1)): an option it would not."""
    return not name.startswith("-") and (await run(".", "check-ref-format", f"refs/heads/{name}"))[0] == 0


async def author(where: str | Path) -> dict[str, str]:
    """What the environment must add so that a commit has an author: nothing where git knows one."""
    code, _, _ = await run(where, "var", "GIT_COMMITTER_IDENT")
    if code == 0:
        return {}
    ours = {"NAME": "forkjoin", "EMAIL": "forkjoin@localhost"}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in ours.items()}


async def update_refs(repository: str | Path, lines: list[str], why: str) -> None:
    """Change refs in one transaction, as `update-ref --stdin` takes it.

    Raises:
        GitError: A ref was not what its line said; then none has changed.
    """
    script = "".join(f"{line}\n" for line in ("start", *lines, "prepare", "commit"))
    await git(repository, "update-ref", "--create-reflog", "-m", why, "--stdin", stdin=script.encode())
