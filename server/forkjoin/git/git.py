"""Calls of git: functions that run it and return its output.

Every call uses the options and variables of safe_options.py, and git_config.py overrides any command in the
repository's configuration that the user has not trusted. So git does not see `GIT_*` variables of this process, never
prompts, takes no optional lock in the user's checkout, and runs no hook. Objects and refs that it writes are on disk
when it exits. Text from outside stands behind `--`, or is a full ref or an object id that git itself resolved.

A call is made at a worktree's root or in a git folder. git_folder.py names both to git explicitly, and git looks no
further up: if an agent has deleted its worktree's `.git`, git doesn't use a repository around forkjoin's home instead.
"""

import contextlib
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import IO

from anyio import to_thread

from forkjoin.core.error import GitRefusedError, git_error
from forkjoin.git.git_config import GIT_CONFIG
from forkjoin.git.git_folder import locate
from forkjoin.git.git_process import Completed, read_limited, run_reader, run_writer

#: Subcommands that change nothing as forkjoin calls them. Such a git may be killed at any time.
_READERS = frozenset(
    (
        *("cat-file", "check-ignore", "check-ref-format", "config", "diff", "diff-files", "diff-index", "diff-tree"),
        *("for-each-ref", "log", "ls-files", "merge-base", "remote", "rev-list", "rev-parse", "show-ref"),
        *("status", "symbolic-ref", "var", "version"),
    )
)


async def run(
    where: str | Path,
    *arguments: str,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    extra: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    ok_codes: Container[int] | None = None,
) -> Completed:
    """Run git to its end. Return its exit code, stdout and stderr.

    A git that may write is not killed when the caller is cancelled, because a killed git leaves its locks behind. If
    forkjoin itself is killed, git goes on.

    Args:
        where: A worktree's root, or a git folder.
        arguments: The subcommand and its arguments, after any `-c` options.
        stdin: What git reads: bytes, or a file from its beginning.
        stdout: A file that git writes to. The returned stdout is then empty.
        extra: Environment variables for git, in addition to the usual ones.
        pass_fds: File descriptors that git inherits, so that a lock on one of them lasts until git has exited.
        ok_codes: The exit codes that raise no error. By default, no exit code raises one.

    Raises:
        GitError: git hung and was ended, or its exit code is not one of `ok_codes`.
    """
    variables = await _find_variables(where, arguments, extra)
    if stdout is None and _is_reader(arguments):
        done = await run_reader(where, arguments, variables, stdin=stdin, pass_fds=pass_fds)
    else:
        done = await run_writer(where, arguments, variables, stdin=stdin, stdout=stdout, pass_fds=pass_fds)
    if ok_codes is not None and done.code not in ok_codes:
        raise git_error(arguments, done.code, done.stderr)
    return done


async def output(
    where: str | Path,
    *arguments: str,
    stdin: bytes | None = None,
    extra: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run git as `run` does. Return its stdout without the last line end.

    Raises:
        GitError: git exited with another code than 0.
    """
    done = await run(where, *arguments, stdin=stdin, extra=extra, pass_fds=pass_fds, ok_codes=(0,))
    return os.fsdecode(done.stdout).removesuffix("\n")


async def read_output(where: str | Path, *arguments: str, limit: int, extra: Mapping[str, str] | None = None) -> bytes:
    """Return the first `limit` bytes of git's stdout.

    Use it only for calls that change nothing.

    Raises:
        GitError: git failed before it had printed that many bytes.
    """
    return await read_limited(where, arguments, limit, await _find_variables(where, arguments, extra))


async def find_git_dir(folder: Path) -> Path:
    """Return the git folder of the repository around `folder`, as git finds it.

    Raises:
        GitError: There is no repository, or git refuses to use it.
    """
    arguments = ("rev-parse", "--absolute-git-dir")
    for level in (folder, *folder.parents):
        if location := await to_thread.run_sync(locate, level, dict[str, str]()):
            await to_thread.run_sync(location.check_usable, arguments)
            # GIT_CONFIG raises an error at once if git hung on this configuration a moment ago. If git refuses the
            # configuration, the call below reports that, or finds a repository further up.
            with contextlib.suppress(GitRefusedError):
                await GIT_CONFIG.read(location)
            break
    # Without GIT_WORK_TREE, git would use core.worktree, which an agent may have set.
    extra = {"GIT_CEILING_DIRECTORIES": "", "GIT_WORK_TREE": str(folder)}
    code, stdout, stderr = await run_reader(folder, arguments, extra)
    if code != 0:
        raise git_error(arguments, code, stderr)
    return await to_thread.run_sync(Path(os.fsdecode(stdout).removesuffix("\n")).resolve)


def _is_reader(arguments: Sequence[str]) -> bool:
    """Return whether the subcommand of a call of git changes nothing."""
    n = 0
    while n < len(arguments) and arguments[n] == "-c":
        n += 2
    return n < len(arguments) and arguments[n] in _READERS


async def _find_variables(
    where: str | Path, arguments: Sequence[str], extra: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the environment variables of a call of git.

    They are the location, `extra`, and the overrides of the configuration.

    If `where` is neither a worktree's root nor a git folder, return `extra` alone.

    Raises:
        GitRefusedError: git would block on a file of the git folder, or read it without end.
    """
    location = await to_thread.run_sync(locate, Path(where), extra or {})
    if location is None:
        return {**(extra or {})}
    await to_thread.run_sync(location.check_usable, arguments)
    config = await GIT_CONFIG.read(location)
    return {**location.environment, **(extra or {}), **config.overrides}
