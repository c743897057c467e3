"""Discovery of cgroup roots, tested on plain files that imitate the kernel's and systemd's cgroups.

test_memory_limits.py and test_cgroup_files.py test real cgroups where these exist.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits
from forkjoin.process import attempt_cgroups, cgroup_files, cgroup_root, daemon_cgroup
from forkjoin.process.cgroup_root import CgroupRoot
from forkjoin.process.executor import Executor
from support.attempts import Place, ended, limited, lines, shell

ALL = ("pids", "memory", "cpu")
OTHERS = 2**22 + 1  #: a pid that no process has


class Tree:
    """Cgroup hierarchies of plain files, and the files in /proc that describe them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.memberships = folder / "memberships"
        self.memberships.write_text("")
        self.mounts = ""

    def mount(self, name: str, kind: str = "cgroup2", options: str = "rw", root: str = "/") -> None:
        self.mounts += f"31 23 0:28 {root} {self.folder / name} rw - {kind} {kind} {options}\n"

    def add(self, path: str, *pids: int, controllers: str = "cpu io memory pids", is_root: bool = False) -> str:
        """Add a cgroup of version 2 with these processes. Return its folder."""
        at = self.folder / path
        at.mkdir(parents=True, exist_ok=True)
        (at / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        (at / "cgroup.controllers").write_text(controllers)
        (at / "cgroup.subtree_control").touch()
        if not is_root:
            (at / "cgroup.type").write_text("domain\n")
        return str(at)

    def set_memberships(self, *lines: str) -> None:
        """Set the content of /proc/self/cgroup."""
        self.memberships.write_text("".join(f"{line}\n" for line in lines))

    def read(self, file: str) -> str:
        match file:
            case "/proc/self/cgroup":
                return self.memberships.read_text()
            case "/proc/self/mountinfo":
                return self.mounts
            case _:
                return _really_read(file)


_really_read = cgroup_files.read


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Return a tree on a machine without systemd."""
    tree = Tree(tmp_path / "cgroup")
    monkeypatch.setattr(cgroup_files, "read", tree.read)
    monkeypatch.setattr(cgroup_root, "SYSTEMD", str(tmp_path / "none"))
    return tree


@pytest.fixture
def systemd(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_root, "SYSTEMD", str(tmp_path))


# -- version 2


def test_the_root_cgroup_is_used_though_it_contains_processes(tree: Tree) -> None:
    tree.mount("v2")
    root = tree.add("v2", 1, OTHERS, is_root=True)
    tree.set_memberships("0::/")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(root, 2, ALL)]


def test_the_daemons_own_cgroup_is_used_after_the_daemon_moved_to_a_leaf(tree: Tree, systemd: None) -> None:
    tree.mount("v2")
    tree.add("v2", is_root=True)
    own = tree.add("v2/user.slice/a.scope", os.getpid())
    tree.set_memberships("0::/user.slice/a.scope")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(own, 2, ALL, must_be_empty=True)]
    daemon_cgroup.join_daemon_cgroup()
    assert Path(own, "forkjoin-daemon/cgroup.procs").read_text() == "0"
    tree.set_memberships("0::/user.slice/a.scope/forkjoin-daemon")
    tree.add("v2/user.slice/a.scope")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(own, 2, ALL, must_be_empty=True)]


def test_a_cgroup_with_other_processes_gets_no_controllers(tree: Tree, systemd: None) -> None:
    """A parent cgroup is not used either if systemd did not delegate it."""
    tree.mount("v2")
    tree.add("v2", is_root=True)
    tree.add("v2/user.slice")
    own = tree.add("v2/user.slice/a.scope", os.getpid(), OTHERS)
    tree.set_memberships("0::/user.slice/a.scope")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(own, 2, ())]


def test_an_empty_parent_cgroup_is_used_without_systemd(tree: Tree) -> None:
    tree.mount("v2")
    root = tree.add("v2")
    tree.add("v2/init", os.getpid(), OTHERS)
    tree.set_memberships("0::/init")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(root, 2, ALL, must_be_empty=True)]


def test_no_cgroup_is_created_within_an_attempts_cgroup(tree: Tree) -> None:
    tree.mount("v2")
    own = tree.add("v2/a", controllers="memory pids")
    tree.set_memberships("0::/a/forkjoin-0123/forkjoin-a1-1-4567")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(own, 2, ("pids", "memory"), must_be_empty=True)]


def test_no_cgroup_root_is_found_without_write_access(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.mount("v2")
    tree.add("v2")
    tree.set_memberships("0::/")

    def refuse(file: str, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", refuse)
    assert cgroup_root.find_cgroup_roots() == []


# -- version 1


def test_each_hierarchy_of_version_1_with_limits_is_used(tree: Tree) -> None:
    """Controllers may share a hierarchy, and a mount may show only a part."""
    tree.mount("cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    tree.mount("memory", "cgroup", "rw,memory", root="/docker/x")
    tree.mount("freezer", "cgroup", "rw,freezer")
    tree.mount("v2")
    for path in ("cpu,cpuacct", "memory/y", "freezer", "v2"):
        (tree.folder / path).mkdir(parents=True)
    tree.set_memberships("3:freezer:/", "2:memory:/docker/x/y", "1:cpu,cpuacct:/", "0::/")
    memory = CgroupRoot(str(tree.folder / "memory/y"), 1, ("memory",))
    assert cgroup_root.find_cgroup_roots() == [
        memory,
        CgroupRoot(str(tree.folder / "cpu,cpuacct"), 1, ("cpu", "cpuacct")),
    ]


def test_the_freezer_is_used_if_no_hierarchy_has_limits(tree: Tree) -> None:
    tree.mount("freezer", "cgroup", "rw,freezer")
    (tree.folder / "freezer").mkdir()
    tree.set_memberships("3:freezer:/")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(str(tree.folder / "freezer"), 1, ())]


# -- limits


def as_dict(settings: list[list[str]]) -> dict[str, str]:
    return {setting[0]: setting[1] for setting in settings}


def test_limits_of_an_attempt_and_of_all_attempts_are_written_to_nested_cgroups() -> None:
    base = CgroupRoot("/c", 2, ALL, must_be_empty=True)
    [folder] = attempt_cgroups.place([base], "h", "a1-1-x")
    assert folder == "/c/forkjoin-h/forkjoin-a1-1-x"
    own, total = TreeLimits(memory=200, processes=50, cpus=1.5), TreeLimits(memory=1000, processes=60)
    values = as_dict(attempt_cgroups.settings([base], [folder], own, total))
    # Each controller is written on its own, and the last is cpu.
    assert values["/c/cgroup.subtree_control"] == values["/c/forkjoin-h/cgroup.subtree_control"] == "+cpu"
    assert {name.removeprefix("/c/forkjoin-h/"): value for name, value in values.items() if "control" not in name} == {
        "pids.max": "120",
        "memory.max": "1000",
        "memory.swap.max": "0",
        "cpu.max": "max 100000",
        "forkjoin-a1-1-x/pids.max": "50",
        "forkjoin-a1-1-x/memory.max": "200",
        "forkjoin-a1-1-x/memory.swap.max": "0",
        "forkjoin-a1-1-x/memory.oom.group": "1",
        "forkjoin-a1-1-x/cpu.max": "150000 100000",
    }


def test_removed_limits_are_reset() -> None:
    base = CgroupRoot("/c", 2, ALL)
    values = as_dict(attempt_cgroups.settings([base], attempt_cgroups.place([base], "h", "a"), UNLIMITED, UNLIMITED))
    assert (values["/c/forkjoin-h/memory.max"], values["/c/forkjoin-h/memory.swap.max"]) == ("max", "max")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"memory.events": "oom 1\noom_kill 1\n"}, "its memory limit of 200 MB (peak 200 MB)"),
        (
            {"memory.events": "oom 0\noom_kill 2\n", "../memory.events.local": "oom 1\noom_kill 0\n"},
            "the memory limit of 1 GB of all agents together",
        ),
        (
            {
                "memory.events": "oom 0\noom_kill 2\n",
                "../memory.events.local": "oom 0\n",
                "../memory.events": "oom 1\n",
            },
            "the kernel, since the machine had no memory left",
        ),
        ({"pids.events": "max 3\n", "pids.peak": "50\n"}, "its limit of 50 processes and threads (peak 50)"),
        ({"cpu.stat": "usage_usec 61000000\nuser_usec 1\n"}, "its limit of 1 min of CPU time"),
    ],
)
async def test_an_attempt_ends_and_names_the_limit_that_its_cgroup_reports(
    place: Place, local: Executor, tree: Tree, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", lambda: [CgroupRoot(tree.add("v2"), 2, ALL)])
    executor = Executor(place.folder, place.daemon_lock, [], TreeLimits(memory=1_000_000_000))
    spec = shell("a1-1", "echo up; exec sleep 1000")
    await executor.submit(limited(spec, memory=200_000_000, processes=50, cpu_s=60))
    await lines(executor, "a1-1", 1)
    [group] = map(Path, attempt_cgroups.find(place.folder / "a1-1"))
    for name, text in files.items():
        (group / name).write_text(text)
    outcome = await ended(executor, "a1-1")
    assert outcome.kind == "limited"
    assert str(outcome).startswith(f"ended by {reason}")


async def test_the_watchdog_enforces_a_limit_that_a_cgroup_rejects(
    local: Executor, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a cgroup is one of version 2 whose controllers are not delegated."""
    root = tree.add("v2")
    Path(root, "forkjoin-x").touch()

    def place(bases: object, home: str, attempt: str) -> list[str]:
        return [f"{root}/forkjoin-x/forkjoin-{attempt}"]

    monkeypatch.setattr(attempt_cgroups, "place", place)
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", lambda: [CgroupRoot(root, 2, ALL)])
    await local.submit(
        limited(shell("a1-1", "for n in $(seq 60); do sleep 1000 & sleep 0.01; done; wait"), processes=20)
    )
    assert "by its limit of 20 processes" in str(await ended(local, "a1-1"))


# -- systemd

BUSCTL = """#!/bin/sh
echo "$@" >> "$0.calls"
{answer}
"""


@pytest.fixture
def join(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: None) -> Callable[[str, str, int], str]:
    """Return a function that joins a daemon cgroup with a fake busctl.

    The function takes the cgroup of the daemon, which contains other processes, a script for busctl, and the uid. It
    returns the calls of busctl.
    """

    def join(own: str, answer: str, user: int) -> str:
        tree.mount("v2")
        tree.add("v2", is_root=True)
        tree.add(f"v2{own}", os.getpid(), OTHERS)
        tree.set_memberships(f"0::{own}")
        busctl = tmp_path / "bin" / "busctl"
        busctl.parent.mkdir()
        busctl.write_text(BUSCTL.format(answer=answer))
        busctl.chmod(0o700)
        monkeypatch.setenv("PATH", f"{busctl.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(os, "getuid", lambda: user)
        monkeypatch.setattr(daemon_cgroup, "_SCOPE_TIMEOUT_S", 0.5)
        daemon_cgroup.join_daemon_cgroup()
        calls = Path(f"{busctl}.calls")
        return calls.read_text() if calls.exists() else ""

    return join


def test_the_daemon_requests_its_own_scope_from_the_users_systemd(
    join: Callable[[str, str, int], str], tree: Tree
) -> None:
    scope = f"app-forkjoin-{os.getpid()}.scope"
    at = tree.folder / "v2" / scope
    give = f"echo 0::/{scope} > {tree.memberships}"
    tree.add(f"v2/{scope}", os.getpid())
    calls = join("/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", give, 1000)
    assert "--user" in calls
    assert calls.endswith(f"{scope} fail 2 PIDs au 1 {os.getpid()} Delegate b true 0\n")
    assert cgroup_root.find_cgroup_roots() == [CgroupRoot(str(at), 2, ALL, must_be_empty=True)]
    assert (at / "forkjoin-daemon" / "cgroup.procs").read_text() == "0"


def test_root_requests_a_scope_from_the_systems_systemd(join: Callable[[str, str, int], str]) -> None:
    assert "--system" in join("/user.slice/user-0.slice/session-1.scope", "", 0)


def test_no_scope_is_requested_if_it_would_end_with_the_last_login(join: Callable[[str, str, int], str]) -> None:
    assert join("/user.slice/user-1000.slice/session-1.scope", "", 1000) == ""


@pytest.mark.parametrize("answer", ["exit 1", "exec sleep 1000", "exit 0"])
def test_the_daemon_starts_though_systemd_refuses_or_hangs(join: Callable[[str, str, int], str], answer: str) -> None:
    assert join("/user.slice/user-0.slice/session-1.scope", answer, 0)
    assert [base.controllers for base in cgroup_root.find_cgroup_roots()] == [()]
