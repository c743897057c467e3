"""Running git as a child process, and ending a git that hangs.

These functions don't override commands in the repository's configuration. Other modules call git through git.py, which
does that.
"""

import contextlib
import math
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import anyio

from forkjoin.core.error import GitHungError, git_error
from forkjoin.git import safe_options

#: Seconds after which a git that may write is ended. A git that takes longer hangs on a lock or a network file system.
_WRITER_TIMEOUT_S = 600
#: Seconds without activity after which a git that only reads is ended. They are twice the longest time for which git
#: waits for a lock (safe_options.py).
_IDLE_TIMEOUT_S = 20.0
#: Seconds for which a git that may write can wait for a named pipe before it is ended.
_PIPE_TIMEOUT_S = 5.0

#: git's error if a concurrent gc removes the empty folder into which git writes an object. Such a call is repeated.
#: Seen with git 2.47: twice in 1,200 objects, while gc ran in a loop.
_FOLDER_REMOVED_BY_GC = "unable to create temporary file: No such file or directory"
_RETRIES = 4

#: The number of bytes of stderr that are read.
_STDERR_LIMIT = 10_000


class Completed(NamedTuple):
    """The exit code and output of a git process."""

    code: int
    stdout: bytes
    stderr: str


async def run_writer(
    where: str | Path,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a git that may write. Let it finish even if the caller is cancelled.

    Run git again if it failed because of a concurrent gc.

    Raises:
        GitHungError: git waited for a named pipe, or took too long. It got SIGTERM, so that it removes its locks.
    """
    argv, env = _command(where, arguments, variables)

    async def run_once() -> Completed | None:
        with _as_stdin(stdin) as source, anyio.fail_after(_WRITER_TIMEOUT_S, shield=True):
            return await _run(argv, env, source, _wait_for_pipe, signal.SIGTERM, stdout=stdout, pass_fds=pass_fds)

    try:
        done = await run_once()
        for _ in range(_RETRIES):
            if done and done.code and _FOLDER_REMOVED_BY_GC in done.stderr:
                done = await run_once()
    except TimeoutError:
        raise GitHungError(arguments, -1, f"hung, and was ended after {_WRITER_TIMEOUT_S} s") from None
    if done is None:
        advice = f"remove the pipe, which this finds: find {where} -type p"
        raise GitHungError(arguments, -1, f"was ended because it waited for a named pipe in the git folder; {advice}")
    return done


async def run_reader(
    where: str | Path,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    stdin: bytes | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    limit: float = math.inf,
) -> Completed:
    """Run a git that only reads.

    Kill git if the caller is cancelled, or after `limit` bytes of output.

    Raises:
        GitHungError: git was idle for too long, for instance because a ref or a file is a named pipe.
    """
    argv, env = _command(where, arguments, variables)
    with _as_stdin(stdin) as source:
        done = await _run(argv, env, source, _wait_for_idleness, signal.SIGKILL, pass_fds=pass_fds, limit=limit)
    if done is None:
        raise GitHungError(arguments, -1, f"hung, and was ended after {_IDLE_TIMEOUT_S} s without activity")
    return done


async def read_limited(where: str | Path, arguments: Sequence[str], limit: int, variables: Mapping[str, str]) -> bytes:
    """Return the first `limit` bytes of the stdout of a git that only reads.

    Raises:
        GitError: git failed before it had printed that many bytes.
    """
    code, stdout, stderr = await run_reader(where, arguments, variables, limit=limit)
    if code != 0 and len(stdout) < limit:
        raise git_error(arguments, code, stderr)
    return stdout[:limit]


def _command(
    where: str | Path, arguments: Sequence[str], variables: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the argv and the environment of a call of git.

    With these, git looks for a repository in `where` only, not in the folders above, unless `variables` say otherwise.
    """
    above = str(Path(where).absolute().parent)
    argv = ["git", "-C", str(where), *safe_options.OPTIONS, *arguments]
    return argv, safe_options.safe_environment({"GIT_CEILING_DIRECTORIES": above, **variables})


@contextlib.contextmanager
def _as_stdin(data: bytes | IO[bytes] | None) -> Generator[IO[bytes] | int]:
    """Yield what `subprocess` takes as stdin.

    It is a file that is read from its beginning, or DEVNULL if `data` is `None`.

    Bytes are put into a file, because writing to a pipe fails if git exits before it has read everything.
    """
    if data is None:
        yield subprocess.DEVNULL
        return
    if not isinstance(data, bytes):
        data.seek(0)
        yield data
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


async def _run(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: IO[bytes] | int,
    wait_for_hang: Callable[[int], Awaitable[None]],
    end_signal: signal.Signals,
    *,
    stdout: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    limit: float = math.inf,
) -> Completed | None:
    """Run a program to its end. Return `None` if it hung and was sent `end_signal`.

    Args:
        argv: The program and its arguments.
        env: The program's environment.
        stdin: The program's stdin.
        wait_for_hang: A function that takes the pid, and returns as soon as that process counts as hung.
        end_signal: The signal for a process that hangs.
        stdout: A file for the program's output, which is not returned then.
        pass_fds: File descriptors that the program inherits.
        limit: The number of bytes of output after which the program is killed.
    """
    data, code, hung = bytearray(), -1, False
    out = subprocess.PIPE if stdout is None else stdout
    with tempfile.TemporaryFile() as stderr:
        async with (
            await anyio.open_process(
                argv, stdin=stdin, stdout=out, stderr=stderr, env=env, pass_fds=pass_fds
            ) as process,
            anyio.create_task_group() as tasks,
        ):

            async def end_if_hung() -> None:
                nonlocal hung
                await wait_for_hang(process.pid)
                hung = True
                process.send_signal(end_signal)

            tasks.start_soon(end_if_hung)
            if process.stdout:
                async for chunk in process.stdout:
                    data += chunk
                    if len(data) >= limit:
                        process.kill()
                        break
            code = await process.wait()
            tasks.cancel_scope.cancel()
        stderr.seek(0)
        text = stderr.read(_STDERR_LIMIT).decode(errors="replace")
        return None if hung else Completed(code, bytes(data), text)


async def _wait_for_pipe(pid: int) -> None:
    """Return once a process has waited for a named pipe for too long.

    The limit is `_PIPE_TIMEOUT_S`, without a break.
    """
    since = anyio.current_time()
    while anyio.current_time() - since < _PIPE_TIMEOUT_S:
        await anyio.sleep(_PIPE_TIMEOUT_S / 10)
        if not _is_opening_pipe(pid):
            since = anyio.current_time()


def _is_opening_pipe(pid: int) -> bool:
    """Return whether a process waits for the other end of a named pipe (proc(5))."""
    try:
        return Path(f"/proc/{pid}/wchan").read_bytes() == b"wait_for_partner"
    except OSError:
        return False


async def _wait_for_idleness(pid: int) -> None:
    """Return once a process has been idle for `_IDLE_TIMEOUT_S`.

    An idle process neither computes nor reads nor writes.
    """
    last, since = _activity(pid), anyio.current_time()
    while anyio.current_time() - since < _IDLE_TIMEOUT_S:
        await anyio.sleep(_IDLE_TIMEOUT_S / 20)
        if (now := _activity(pid)) != last:
            last, since = now, anyio.current_time()


def _activity(pid: int) -> object:
    """Return counters that grow while a process is active (proc(5)).

    Return `None` if they can't be read, for instance because the process has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[9], fields[11:15], Path(f"/proc/{pid}/io").read_bytes()
    except OSError:
        return None
