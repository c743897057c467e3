"""Lookup of the attempt to which a process belongs."""

import os
import signal
import sys
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.process import attempt_cgroups, attempt_processes, cgroup_files, process_owner, process_table
from forkjoin.process.executor import Executor
from forkjoin.process.process_owner import find_owner
from support.attempts import Place, lines, pids, read_line, read_sleeper, run, shell, shim_of, start

#: Commands that start a child and print its pid. Most of them hide to which attempt the child belongs.
CHILDREN = {
    "its own": "sleep 1000 & echo $!",
    "without a mark": "env -u FORKJOIN_MARK sleep 1000 & echo $!",
    "in a session of its own without an environment": "setsid env -i sh -c 'echo $$; exec sleep 1000' &",
    "forked twice": "env -i setsid sh -c 'setsid sleep 1000 & echo $!'",
    "as a supervisor": "env -i FORKJOIN_KEEPER=1 setsid sh -c 'sleep 1000 & echo $!'",
    "with the mark of another attempt": "FORKJOIN_MARK=$ATTEMPTS/a2-1 setsid sleep 1000 & echo $!",
    "with the mark of another home": "FORKJOIN_MARK=/elsewhere/attempts/a2-1 setsid sleep 1000 & echo $!",
}


@pytest.fixture(params=["with cgroups", "without cgroups"])
def rules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use, or do not use, cgroups to find the attempt of a process."""
    if request.param == "without cgroups":
        monkeypatch.setattr(attempt_cgroups, "find_attempt", _find_none)


def _find_none(*_: object) -> None:
    """Find no attempt."""


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN.keys())
async def test_every_child_of_a_program_belongs_to_its_attempt(
    rules: None, local: Executor, place: Place, child: str
) -> None:
    await local.submit(shell("a1-1", f"ATTEMPTS={place.folder}; {child}\nsleep 1000"))
    (pid,) = await pids(local, "a1-1", 1)
    assert await local.find_owner(pid) == "a1-1"


async def test_a_process_belongs_to_its_attempt_after_the_shim_was_killed(
    rules: None, local: Executor, place: Place
) -> None:
    await local.submit(shell("a1-1", "sleep 1000 & echo $!; sleep 1000"))
    (pid,) = await pids(local, "a1-1", 1)
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    assert await local.find_owner(pid) == "a1-1"


async def test_a_process_of_another_home_belongs_to_no_attempt_of_this_home(
    local: Executor, place: Place, tmp_path: Path
) -> None:
    await local.submit(shell("a1-1", f"export FORKJOIN_MARK={tmp_path}/a1-1\nsetsid sleep 1000 & echo $!; sleep 1000"))
    (pid,) = await pids(local, "a1-1", 1)
    with pytest.raises(CallerError, match="daemon started itself"):  # this process has started its shim
        find_owner(tmp_path / "elsewhere", pid)


def test_a_process_outside_all_attempts_belongs_to_no_attempt(tmp_path: Path) -> None:
    assert find_owner(tmp_path, os.getpid()) is None
    assert find_owner(tmp_path, os.getppid()) is None


FIND_OWN_ATTEMPT = """
import os, sys; sys.path.append(sys.argv[1])
from pathlib import Path
from forkjoin.process import attempt_cgroups, attempt_processes, cgroup_files, process_owner, process_table
attempt_cgroups.find_attempt = lambda *_: None
print(process_owner.find_owner(Path(sys.argv[2]), os.getpid()))
"""


async def test_a_process_can_find_its_own_attempt(local: Executor, place: Place, tmp_path: Path) -> None:
    (tmp_path / "finder.py").write_text(FIND_OWN_ATTEMPT)
    server = Path(process_table.__file__).parents[2]
    finder = f"env -i setsid -w {sys.executable} {tmp_path}/finder.py {server} {place.folder}"
    assert await run(local, shell("a1-1", finder)) == b"a1-1\n"


def test_a_process_that_the_daemon_started_itself_is_refused(tmp_path: Path, sibling: int) -> None:
    with pytest.raises(CallerError, match="daemon started itself"):
        find_owner(tmp_path, sibling)


def test_a_process_that_has_ended_is_refused(tmp_path: Path) -> None:
    with start("true") as started:
        started.wait()
    with pytest.raises(CallerError, match=f"process {started.pid} has ended"):
        find_owner(tmp_path, started.pid)


def test_a_marked_process_without_a_shim_and_its_children_belong_to_the_mark(tmp_path: Path) -> None:
    with start("sh", "-c", "env -i sh -c 'echo $$; exec sleep 1000' & wait", mark=f"{tmp_path}/a3-person") as started:
        assert find_owner(tmp_path, started.pid) == "a3-person"
        assert find_owner(tmp_path, read_sleeper(started)) == "a3-person"


def test_an_orphan_and_its_child_belong_to_the_attempt_of_their_session(tmp_path: Path) -> None:
    orphan, parent = tmp_path / "orphan", tmp_path / "parent"
    orphan.write_text("setsid sh -c 'echo $$; exec sleep 1000' & echo $$; exec sleep 1000")
    parent.write_text(f"env -i sh {orphan} &")
    with start("sh", "-c", f"env -i sh {parent}; exec sleep 1000", mark=f"{tmp_path}/a1-1") as started:
        found = [int(read_line(started)) for _ in range(2)]
        while any(entry.identity.pid == started.pid for pid in found for entry in process_owner._read_ancestors(pid)):
            pass  # until the parent has ended
        assert {find_owner(tmp_path, pid) for pid in found} == {"a1-1"}
        assert {entry.identity.pid for entry in attempt_processes.find_processes(f"{tmp_path}/a1-1", None)}.issuperset(
            found
        )
        for pid in found:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not attempt_cgroups.find_cgroup_roots(), reason="no cgroup can be made here")
def test_a_process_in_an_attempts_cgroup_belongs_to_it(tmp_path: Path) -> None:
    group = attempt_cgroups.find(tmp_path / "a1-1")[0]
    os.makedirs(f"{group}/within")
    try:
        with start("sleep", "1000") as started:
            assert cgroup_files.write(f"{group}/within/cgroup.procs", str(started.pid))
            assert find_owner(tmp_path, started.pid) == "a1-1"
    finally:
        attempt_cgroups.remove_cgroups_of(tmp_path / "a1-1")


@pytest.mark.parametrize("path", ["", "/", "1:name=systemd:/", "4:memory:/forkjoin-x/forkjoin-a1-1-0", "0::/../.."])
def test_a_foreign_cgroup_belongs_to_no_attempt(tmp_path: Path, path: str) -> None:
    assert attempt_cgroups.find_attempt(tmp_path, path) is None


async def test_a_shim_is_identified_by_its_record_not_by_its_command_line(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "sleep 1000 & echo $!; sleep 1000"))
    await local.submit(shell("a2-1", f"env -i sh -c 'sleep 1000 & echo $!; wait' {place.folder}/a1-1 0"))
    await lines(local, "a1-1", 1)
    (pid,) = await pids(local, "a2-1", 1)
    assert await local.find_owner(pid) == "a2-1"
