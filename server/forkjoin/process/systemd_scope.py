"""The daemon's own place among cgroups: in a scope of systemd's, where it would have no limits to give without."""

import contextlib
import os
import pwd
import subprocess
import time

from forkjoin.process import cgroup_files, cgroup_root

#: Where in its own cgroup of version 2 the daemon goes, so that this holds no process itself.
_LEAF = f"{cgroup_files.PREFIX}daemon"
_LINGER = "/var/lib/systemd/linger"
#: How long systemd may take to make a scope.
_SCOPE_S = 5.0


def settle() -> None:
    """Be where a daemon should: in no attempt's cgroup, though started in one, and in a leaf of what is its own."""
    if _lacks_limits() and _asks_well():
        _ask_for_scope()
    own = cgroup_root.folders_of("self").values()
    for base in cgroup_root.find_bases():
        wanted = f"{base.folder}/{_LEAF}" if base.is_own else base.folder
        if wanted not in own:
            with contextlib.suppress(OSError):
                os.makedirs(wanted, exist_ok=True)
                cgroup_files.enter(wanted)


def _lacks_limits() -> bool:
    """Whether there is a version 2 with controllers of which we may use none."""
    _, point = cgroup_root.mounts("self").get("", ("", ""))
    return (
        bool(point)
        and "memory" in cgroup_files.read(f"{point}/cgroup.controllers").split()
        and not any("memory" in base.controllers for base in cgroup_root.find_bases())
    )


def _asks_well() -> bool:
    """Whether what lives in a scope of systemd's lives as long as where it is now: a user's end with the last login."""
    user = os.getuid()
    return os.path.exists(cgroup_root.SYSTEMD) and (
        user == 0 or f"/user@{user}.service/" in cgroup_files.read("/proc/self/cgroup") or _lingers(user)
    )


def _lingers(user: int) -> bool:
    try:
        return os.path.exists(f"{_LINGER}/{pwd.getpwuid(user).pw_name}")
    except KeyError:
        return False


def _ask_for_scope() -> None:
    """Have systemd put this process into a scope that is delegated to it, if it does so within some seconds.

    As `systemd-run --scope` does, but of a process that is there: it comes up whatever systemd answers.
    """
    name = f"app-forkjoin-{os.getpid()}.scope"
    bus = "--system" if os.getuid() == 0 else "--user"
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    properties = ("2", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true")
    call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", *properties, "0")
    give_up = time.monotonic() + _SCOPE_S
    try:
        subprocess.run(["busctl", bus, "--quiet", "call", *manager, *call], check=True, timeout=_SCOPE_S)
    except (OSError, subprocess.SubprocessError):
        return  # what it says is in the daemon's log
    while name not in cgroup_files.read("/proc/self/cgroup") and time.monotonic() < give_up:
        time.sleep(0.01)
