"""Calls of git: one function that runs it, and one small function per question.

Every call strips `GIT_*` from the environment, prompts for nothing, takes no optional lock in the user's checkout, and
runs neither a hook nor a file-system monitor, nor any command in the repository's configuration that is not the
person's own (guard.py). Objects and refs that it writes are on disk when it ends. What comes from outside stands behind
`--`, or is a full ref or an object id that git itself resolved. A call is made where a repository is, at its root or in
its git folder, both are named outright (location.py), and git looks no further up: where an agent has deleted its
`.git`, a repository around our home is not taken for the agent's.
"""

import contextlib
import math
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Container, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import anyio
from anyio import to_thread

from forkjoin.core.error import CallerError, GitHungError, GitRefusedError, git_error
from forkjoin.core.trust_records import Trusted
from forkjoin.git.git_folder import Location, locate
from forkjoin.git.unsafe_config import GUARD, LISTING, Entry, Seen, read_listing

#: The oldest git with `merge-tree --write-tree`.
OLDEST_GIT = (2, 38)

#: A git that takes longer than this hangs, on a lock or on a network file system.
_GIVE_UP_S = 600
_HUNG = "hung, and was ended after {} s"
#: One that only reads hangs as soon as it has done nothing for so long; it may wait for a lock half as long.
_IDLE_S = 20.0
_IDLE = "hung, and was ended after {} s without activity"

#: For how long one that may write waits for a pipe.
_PIPE_S = 5.0
_AT_PIPE = "waited for a pipe that somebody put into the git folder, and was ended; to find it: find {} -type p"

#: What changes nothing as we call it, and so may be ended at any time.
_READS = frozenset(
    (
        *("cat-file", "check-ignore", "check-ref-format", "config", "diff", "diff-files", "diff-index", "diff-tree"),
        *("for-each-ref", "log", "ls-files", "merge-base", "remote", "rev-list", "rev-parse", "show-ref"),
        *("status", "symbolic-ref", "var", "version"),
    )
)

#: What git says where it was about to write an object, and a gc beside it took the empty folder for it away; that is
#: tried again. Seen on 2.47: twice in 1,200 objects, while one gc followed the other.
_BESIDE_A_GC = "unable to create temporary file: No such file or directory"
_TRIES_MORE = 4

#: How much of what git complains of is kept.
_WORDS = 10_000

#: What git says of a symbolic ref that leads in circles, or of a file that is no ref.
_LEADS_NOWHERE = "No such ref"

#: No revision or branch is called by more bytes; the kernel refuses an argument of 128 KB.
_NAME_LIMIT = 4_000

#: Bytes of a repository's configuration that are read; what is longer is an attack, or a mistake.
_CONFIGURATION = 1024 * 1024

_QUIET = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.checkStat=default", "-c", "core.trustctime=true"),  # or a change of the same length hides
    *("-c", "core.ignoreStat=false"),  # or no change is seen in what we check out
    *("-c", "commit.gpgSign=false"),
    *("-c", "log.showSignature=false"),
    *("-c", "i18n.logOutputEncoding=UTF-8", "-c", "i18n.commitEncoding=UTF-8"),
    *("-c", "maintenance.auto=false"),
    *("-c", "gc.auto=0"),
    *("-c", "diff.autoRefreshIndex=false"),
    *("-c", "submodule.recurse=false"),
    *("-c", "safe.bareRepository=all"),  # a bare repository is only ever named outright
    *("-c", "core.fsync=committed", "-c", "core.fsyncMethod=fsync"),  # a batch loses objects to a gc beside it
    # How long locks on refs are waited for: by itself 0.1 s for one, and 1 s for packed ones, which `git gc` rewrites.
    *("-c", "core.filesRefLockTimeout=10000"),
    *("-c", "core.packedRefsTimeout=10000"),
    *("-c", "reftable.lockTimeout=10000"),
)

#: For a call whose objects are not put on disk one by one, as `sync_objects` does it for many.
UNSYNCED = ("-c", "core.fsync=none")


#: What every call has. Objects are what they are: an agent can make others stand for them, by refs/replace/ or a graft.
#: The graft file can't exist: git warns of one that does, though it be empty (read_graft_file in its commit.c).
_VARIABLES = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": f"{os.devnull}/none",
    "LC_ALL": "C",
}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment, made safe for git."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, **_VARIABLES, **(extra or {})}


async def run(
    where: str | Path,
    *arguments: str,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    extra: Mapping[str, str] | None = None,
    holding: Sequence[int] = (),
    fine: Container[int] | None = None,
) -> tuple[int, bytes, str]:
    """Return git's exit code, stdout and stderr; with `stdout`, what it prints goes to that file.

    A call that may write is let finish, whatever is cancelled around it: a git that is killed leaves its locks behind.
    If we are killed, it goes on; `holding` are descriptors of locks that are held until it has ended too.

    Raises:
        GitError: git hung, and was ended; or it exited with another code than those that are `fine`.
    """
    extra = await _safe(where, arguments, extra)
    if stdout is None and _only_reads(arguments):
        code, out, said = await _read_all(where, arguments, extra, stdin, holding)
    else:
        code, out, said = await _write(where, arguments, extra, stdin, stdout, holding)
    if fine is not None and code not in fine:
        raise git_error(arguments, code, said)
    return code, out, said


def _only_reads(arguments: Sequence[str]) -> bool:
    """Return whether a call of git changes nothing, told by its subcommand."""
    n = 0
    while n < len(arguments) and arguments[n] == "-c":
        n += 2
    return n < len(arguments) and arguments[n] in _READS


async def _write(
    where: str | Path,
    arguments: Sequence[str],
    extra: Mapping[str, str],
    stdin: bytes | IO[bytes] | None,
    stdout: IO[bytes] | None,
    holding: Sequence[int],
) -> tuple[int, bytes, str]:
    """As `run`, of a git that may write: it is ended where it waits for a pipe, and puts away its locks then."""
    argv, env = _call(where, arguments, extra)

    async def once() -> _Ended:
        with _given(stdin) as source, anyio.fail_after(_GIVE_UP_S, shield=True):
            return await _attend(argv, env, source, _await_pipe, signal.SIGTERM, stdout=stdout, holding=holding)

    try:
        done = await once()
        for _ in range(_TRIES_MORE):
            if done.code and _BESIDE_A_GC in done.said:
                done = await once()
    except TimeoutError:
        raise GitHungError(arguments, -1, _HUNG.format(_GIVE_UP_S)) from None
    if done.hung:
        raise GitHungError(arguments, -1, _AT_PIPE.format(where))
    return done.code, done.out, done.said


async def _read_all(
    where: str | Path,
    arguments: Sequence[str],
    extra: Mapping[str, str],
    stdin: bytes | IO[bytes] | None = None,
    holding: Sequence[int] = (),
    limit: float = math.inf,
) -> tuple[int, bytes, str]:
    """Run a git that only reads. End it on cancellation, a hang or too much output.

    What it reads, a ref or a worktree that somebody works in, may have become a pipe.
    """
    argv, env = _call(where, arguments, extra)
    with _given(stdin) as source:
        done = await _attend(argv, env, source, _await_idleness, signal.SIGKILL, holding=holding, limit=limit)
    if done.hung:
        raise GitHungError(arguments, -1, _IDLE.format(_IDLE_S))
    return done.code, done.out, done.said


class _Ended(NamedTuple):
    """How a call of git ended."""

    code: int
    out: bytes
    said: str
    hung: bool


async def _attend(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: IO[bytes] | int,
    await_hang: Callable[[int], Awaitable[None]],
    end: signal.Signals,
    *,
    stdout: IO[bytes] | None = None,
    holding: Sequence[int] = (),
    limit: float = math.inf,
) -> _Ended:
    """Run git to its end; once `await_hang` returns, end it by that signal."""
    data, code, hung = bytearray(), -1, False
    out = subprocess.PIPE if stdout is None else stdout
    with tempfile.TemporaryFile() as said:
        async with (
            await anyio.open_process(argv, stdin=stdin, stdout=out, stderr=said, env=env, pass_fds=holding) as process,
            anyio.create_task_group() as tasks,
        ):

            async def watch() -> None:
                nonlocal hung
                await await_hang(process.pid)
                hung = True
                process.send_signal(end)

            tasks.start_soon(watch)
            if process.stdout:
                async for chunk in process.stdout:
                    data += chunk
                    if len(data) >= limit:
                        process.kill()
                        break
            code = await process.wait()
            tasks.cancel_scope.cancel()
        said.seek(0)
        return _Ended(code, bytes(data), said.read(_WORDS).decode(errors="replace"), hung)


async def _await_pipe(pid: int) -> None:
    """Return once a process has waited for a while to open a pipe that nobody else opens."""
    since = anyio.current_time()
    while anyio.current_time() - since < _PIPE_S:
        await anyio.sleep(_PIPE_S / 10)
        if not _is_at_pipe(pid):
            since = anyio.current_time()


def _is_at_pipe(pid: int) -> bool:
    """Return whether a process waits in open(2) for the other end of a pipe, as the kernel tells (proc(5))."""
    try:
        return Path(f"/proc/{pid}/wchan").read_bytes() == b"wait_for_partner"
    except OSError:
        return False


async def _await_idleness(pid: int) -> None:
    """Return once a process has been inactive for too long."""
    done, since = _work_of(pid), anyio.current_time()
    while anyio.current_time() - since < _IDLE_S:
        await anyio.sleep(_IDLE_S / 20)
        if (now := _work_of(pid)) != done:
            done, since = now, anyio.current_time()


def _work_of(pid: int) -> object:
    """Return counters that grow while a process is active (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[9], fields[11:15], Path(f"/proc/{pid}/io").read_bytes()
    except OSError:
        return None


@contextlib.contextmanager
def _given(stdin: bytes | IO[bytes] | None) -> Generator[IO[bytes] | int]:
    """What git is to read. Into a pipe, anyio would fail where git ends before it has read all, or anything."""
    if stdin is None:
        yield subprocess.DEVNULL
        return
    if not isinstance(stdin, bytes):
        stdin.seek(0)
        yield stdin
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


def _call(where: str | Path, arguments: Sequence[str], extra: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    above = str(Path(where).absolute().parent)
    return (
        ["git", "-C", str(where), *_QUIET, *arguments],
        environment({"GIT_CEILING_DIRECTORIES": above, **extra}),
    )


# -- what git is kept from running


async def _safe(where: str | Path, arguments: Sequence[str], extra: Mapping[str, str] | None) -> dict[str, str]:
    """Return a call's extra variables: its location, and settings against commands.

    Raises:
        GitRefusedError: git would wait at a pipe there, or read without an end.
    """
    location = await to_thread.run_sync(locate, Path(where), extra or {})
    if location is None:
        return {**(extra or {})}
    await _check_usable(location, arguments)
    seen = await GUARD.look(location, _list_configuration)
    return {**location.environment, **(extra or {}), **seen.environment}


async def _check_usable(location: Location, arguments: Sequence[str]) -> None:
    if unusable := await to_thread.run_sync(location.find_unusable):
        raise GitRefusedError(arguments, -1, unusable)


async def _list_configuration(folder: Path) -> str:
    listing = await _read(folder, LISTING, _CONFIGURATION, {"GIT_DIR": str(folder), "GIT_WORK_TREE": str(folder)})
    if len(listing) == _CONFIGURATION:
        raise CallerError(f"The git configuration of {folder} is larger than {_CONFIGURATION // 1024} KB; clear it.")
    return os.fsdecode(listing)


async def trust_as_found(common_dir: str) -> None:
    """See that a project is recorded among what is trusted; what it has when it is new there is the person's own."""
    trust = GUARD.trust
    if trust and await to_thread.run_sync(trust.read, common_dir) is None:
        own = await commands(common_dir)
        trusted = Trusted(frozenset(entry.digest for entry in own))
        await to_thread.run_sync(trust.write, common_dir, trusted)


async def commands(common_dir: str) -> list[Entry]:
    """What in the repository's own configuration can run a command or hide files."""
    entries, _ = read_listing(await _list_configuration(Path(common_dir)))
    return [entry for entry in entries if entry.is_repositorys]


async def warn(common_dir: str) -> list[str]:
    """A sentence on what of a repository's configuration is not obeyed, if there is such."""
    location = Location(Path(common_dir), common_dir, Path(common_dir))
    if await to_thread.run_sync(location.find_unusable):  # who calls git there is told
        return []
    seen = await GUARD.look(location, _list_configuration)
    if not seen.strange:
        return []
    what = f"Not obeyed in the git configuration of {common_dir}: {listed(seen.strange)}"
    why = "It can run commands or hide files, and came after the project was first used"
    return [f"{what}. {why}; a person can look, and trust it, with: forkjoin trust"]


async def read(where: str | Path, *arguments: str, limit: int, extra: Mapping[str, str] | None = None) -> bytes:
    """The beginning of git's stdout: `limit` bytes, where it would print more; only for a call that changes nothing."""
    return await _read(where, arguments, limit, await _safe(where, arguments, extra))


async def read_file(where: str | Path, name: str, limit: int, extra: Mapping[str, str] | None = None) -> bytes:
    """The beginning of a file, by git's name for it (gitrevisions(7)); nothing where there is none."""
    try:
        return await read(where, "cat-file", "blob", name, limit=limit, extra=extra)
    except GitRefusedError:
        return b""


async def _read(where: str | Path, arguments: Sequence[str], limit: int, extra: Mapping[str, str]) -> bytes:
    code, data, said = await _read_all(where, arguments, extra, limit=limit)
    if code != 0 and len(data) < limit:
        raise git_error(arguments, code, said)
    return data[:limit]


async def git(
    where: str | Path,
    *arguments: str,
    stdin: bytes | None = None,
    extra: Mapping[str, str] | None = None,
    holding: Sequence[int] = (),
) -> str:
    """git's stdout, without the line end after it; a GitError where it exited with another code than 0."""
    _, out, _ = await run(where, *arguments, stdin=stdin, extra=extra, holding=holding, fine=(0,))
    return os.fsdecode(out).removesuffix("\n")


async def sync_objects(common_dir: str) -> None:
    """See that all objects are on disk: for many that takes far less time than one by one."""
    await anyio.run_process(["sync", "--file-system", "--", f"{common_dir}/objects"], check=False)


def names_in(listing: str) -> list[str]:
    """The names that git lists with `-z`."""
    return [name for name in listing.split("\0") if name]


def as_input(names: Iterable[str]) -> bytes:
    """Names as git reads them from stdin with `-z`."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def readable(name: str) -> str:
    """A file's name as it can be told: one line of text, whatever bytes it is made of."""
    return os.fsencode(name).decode(errors="backslashreplace").replace("\n", "\\n")


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first of these names as they can be told, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(readable(name)[:100] for name in names[:most]) + more


def short(ref: str) -> str:
    """A branch's name as people say it."""
    return ref.removeprefix("refs/heads/")


async def require_version() -> None:
    """Check that git is there, and young enough; a CallerError says what is needed."""
    try:
        found = await version()
    except FileNotFoundError:
        raise CallerError("git was not found in PATH; install git 2.38 or newer") from None
    if found < OLDEST_GIT:
        raise CallerError(f"git {'.'.join(map(str, found))} is too old: forkjoin needs 2.38 or newer (git merge-tree)")


async def discover(folder: Path) -> Path:
    """Discover the git folder of the repository around `folder`, as git does.

    Raises:
        GitError: There is none that git will use.
    """
    arguments = ("rev-parse", "--absolute-git-dir")
    for above in (folder, *folder.parents):
        if location := await to_thread.run_sync(locate, above, dict[str, str]()):
            await _check_usable(location, arguments)
            with contextlib.suppress(GitRefusedError):  # git tells that itself, or looks further up
                await GUARD.look(location, _list_configuration)
            break
    extra = {"GIT_CEILING_DIRECTORIES": "", "GIT_WORK_TREE": str(folder)}  # whatever core.worktree says
    code, out, said = await _read_all(folder, arguments, extra)
    if code != 0:
        raise git_error(arguments, code, said)
    return await to_thread.run_sync(Path(os.fsdecode(out).removesuffix("\n")).resolve)


async def is_called_bare(common_dir: str) -> bool:
    """Return whether a repository's configuration calls it bare."""
    value = (await _look(common_dir)).own.get("core.bare")
    return value is not None and value.lower() in ("true", "yes", "on", "1", "")


async def sharing(common_dir: str) -> str:
    """Return the value of core.sharedRepository (git-config(1))."""
    return (await _look(common_dir)).own.get("core.sharedrepository", "umask")


async def ignore_file(common_dir: str, worktree: Path) -> Path:
    """Return the file that has the person's own ignore rules (core.excludesFile), which may be in the worktree."""
    return worktree / (await _look(common_dir)).ignore


async def _look(common_dir: str) -> Seen:
    location = Location(Path(common_dir), common_dir, Path(common_dir))
    await _check_usable(location, LISTING)
    return await GUARD.look(location, _list_configuration)


async def version() -> tuple[int, ...]:
    """git's major and minor version, and what follows as numbers."""
    found = re.search(r"\d+(\.\d+)*", await git("/", "version"))
    return tuple(map(int, found[0].split("."))) if found else ()


async def resolve(where: str | Path, revision: str) -> str | None:
    """The commit that a name, tag or abbreviation means; none where it means none."""
    if not _is_argument(revision):
        return None
    code, out, _ = await run(where, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return out.decode().strip() if code == 0 else None


def _is_argument(text: str) -> bool:
    """Whether git could be given this at all: half a surrogate pair, a NUL or too many bytes it could not."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return b"\0" not in data and len(data) <= _NAME_LIMIT


async def tip(repository: str | Path, ref: str) -> str | None:
    """Return the commit of a branch, or `None` if it is gone, symbolic or damaged."""
    try:
        found = (await tips(repository, [ref])).get(ref)
    except GitRefusedError:  # the repository is gone, or the commit
        return None
    return found.commit if found else None


async def is_symbolic(repository: str | Path, ref: str) -> bool:
    """Return whether a full ref name stands for another ref."""
    return (await run(repository, "symbolic-ref", "--quiet", "--", ref))[0] == 0


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a branch is."""

    commit: str
    tree: str


async def tips(repository: str | Path, refs: Sequence[str]) -> dict[str, Tip]:
    """Return the commits of these branches, except missing or symbolic branches.

    What a symbolic ref points to is another branch's work.
    """
    try:
        return await _read_tips(repository, refs)
    except GitRefusedError:  # one of them points to an object that is missing
        if len(refs) == 1:
            raise
    found: dict[str, Tip] = {}
    for ref in refs:
        with contextlib.suppress(GitRefusedError):
            found |= await _read_tips(repository, [ref])
    return found


async def _read_tips(repository: str | Path, refs: Sequence[str]) -> dict[str, Tip]:
    form = "--format=%(refname) %(objecttype) %(objectname) %(tree) %(symref)"
    rows = [line.split(" ") for line in await list_refs(repository, form, "--", *refs)]
    return {ref: Tip(commit, tree) for ref, kind, commit, tree, target in rows if kind == "commit" and not target}


async def list_refs(repository: str | Path, *arguments: str) -> list[str]:
    """Return the lines of `for-each-ref`, split at line feeds only."""
    return [line for line in (await git(repository, "for-each-ref", *arguments)).split("\n") if line]


async def find_symbolic(repository: str | Path, ref: str) -> str | None:
    """Return a symbolic ref's target: "" if damaged, `None` if it is not symbolic."""
    arguments = ("symbolic-ref", "--quiet", ref)
    code, out, said = await run(repository, *arguments)
    if code not in (0, 1) and _LEADS_NOWHERE not in said:
        raise git_error(arguments, code, said)
    return os.fsdecode(out).removesuffix("\n") if code != 1 else None


def describe_symbolic(target: str) -> str:
    """Describe a branch that is a symbolic ref, given what `find_symbolic` returned."""
    return f"a symbolic ref to {readable(target)[:200]}, which counts as gone" if target else "damaged"


async def sizes(repository: str | Path, objects: Iterable[str]) -> list[int]:
    """How many bytes each of these objects has, in one call."""
    asked = "".join(f"{one}\n" for one in objects).encode()
    return [
        int(size) for size in (await git(repository, "cat-file", "--batch-check=%(objectsize)", stdin=asked)).split()
    ]


async def find_branch(repository: str | Path, name: str) -> str | None:
    """The full name of the branch of that name; of the one it stands for, where it is a symbolic ref."""
    ref = f"refs/heads/{name}"
    if not await is_branch_name(name):
        return None
    lines = await list_refs(repository, "--format=%(refname) %(symref)", "--", ref)
    found = dict(line.split(" ") for line in lines)  # it may be a folder of other branches
    return found[ref] or ref if ref in found else None


async def is_ancestor(repository: str | Path, old: str, new: str) -> bool:
    """Whether `new` has all that `old` has; a GitError where one of them is missing, or git could not tell."""
    return (await run(repository, "merge-base", "--is-ancestor", old, new, fine=(0, 1)))[0] == 0


async def is_branch_name(name: str) -> bool:
    """Whether git would take this for a branch (git-check-ref-format(1)): an option it would not."""
    if name.startswith("-") or not _is_argument(name):
        return False
    return (await run("/", "check-ref-format", f"refs/heads/{name}"))[0] == 0


async def author(where: str | Path) -> dict[str, str]:
    """What the environment must add so that a commit has an author: nothing where git knows one."""
    code, _, _ = await run(where, "var", "GIT_COMMITTER_IDENT")
    if code == 0:
        return {}
    ours = {"NAME": "forkjoin", "EMAIL": "forkjoin@localhost"}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in ours.items()}


@dataclass(frozen=True, slots=True)
class Signature:
    """Who makes a commit, and when, each as `name <address> seconds zone`."""

    author: str
    committer: str


async def sign(where: str | Path, at: float) -> Signature:
    """How commits are signed that are made here, at this time."""
    dates = {f"GIT_{role}_DATE": f"@{int(at)} +0000" for role in ("AUTHOR", "COMMITTER")}
    extra = await author(where) | dates
    who = [await git(where, "var", f"GIT_{role}_IDENT", extra=extra) for role in ("AUTHOR", "COMMITTER")]
    return Signature(*who)


async def update_refs(
    repository: str | Path,
    lines: Iterable[str],
    why: str,
    *,
    extra: Mapping[str, str] | None = None,
    holding: Sequence[int] = (),
) -> None:
    """Change refs in one transaction of `update-ref --stdin`. Wait for other writers.

    The refs themselves are changed, never what a symbolic one leads to.

    Raises:
        GitError: A ref was not what its line said; then none has changed.
    """
    changes = (f"option no-deref\n{line}" for line in lines)
    script = "".join(f"{line}\n" for line in ("start", *changes, "prepare", "commit"))
    update = ("update-ref", "--create-reflog", "-m", why, "--stdin")
    await git(repository, *update, stdin=os.fsencode(script), extra=extra, holding=holding)
