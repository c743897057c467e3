"""The daemon's move to a cgroup, if necessary in a systemd scope, below which it can limit attempts.

Under systemd with cgroup v2, an ordinary user may create cgroups with controllers only in a delegated unit.
"""

import contextlib
import os
import pwd
import subprocess
import time

from forkjoin.process import cgroup_files, cgroup_root

#: The name of the cgroup into which the daemon moves if the cgroup around it must not contain processes itself.
_DAEMON_CGROUP = f"{cgroup_files.PREFIX}daemon"
_LINGER = "/var/lib/systemd/linger"
#: Seconds that systemd may take to create a scope.
_SCOPE_TIMEOUT_S = 5.0


def join_daemon_cgroup() -> None:
    """Move the daemon, this process, so that it can create cgroups for attempts.

    A daemon that was started in an attempt's cgroup leaves that cgroup. If a move fails, no error is raised: shims then
    measure their attempts instead.
    """
    if _lacks_controllers() and _scope_would_live_long_enough():
        _request_scope()
    current = cgroup_root.cgroups_of("self").values()
    for root in cgroup_root.find_cgroup_roots():
        wanted = f"{root.folder}/{_DAEMON_CGROUP}" if root.must_be_empty else root.folder
        if wanted not in current:
            with contextlib.suppress(OSError):
                os.makedirs(wanted, exist_ok=True)
                cgroup_files.join(wanted)


def _lacks_controllers() -> bool:
    """Return whether this process can't use the memory controller that cgroup v2 has."""
    _, mount_point = cgroup_root.mounts("self").get("", ("", ""))
    return (
        bool(mount_point)
        and "memory" in cgroup_files.read(f"{mount_point}/cgroup.controllers").split()
        and not any("memory" in root.controllers for root in cgroup_root.find_cgroup_roots())
    )


def _scope_would_live_long_enough() -> bool:
    """Return whether in a scope this process lives as long as it does now.

    systemd ends the scopes of a user at the user's last logout, unless lingering is enabled (loginctl(1)). That makes
    no difference to a process that systemd would end at that time anyway.
    """
    user = os.getuid()
    return os.path.exists(cgroup_root.SYSTEMD) and (
        user == 0 or f"/user@{user}.service/" in cgroup_files.read("/proc/self/cgroup") or _lingers(user)
    )


def _lingers(user: int) -> bool:
    try:
        return os.path.exists(f"{_LINGER}/{pwd.getpwuid(user).pw_name}")
    except KeyError:
        return False


def _request_scope() -> None:
    """Ask systemd over D-Bus to move this process to a new delegated scope.

    Wait until it is done, for `_SCOPE_TIMEOUT_S` at most. `systemd-run --scope` would not do, since it can't move a
    process that runs already.
    """
    name = f"app-forkjoin-{os.getpid()}.scope"
    bus = "--system" if os.getuid() == 0 else "--user"
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    properties = ("2", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true")
    call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", *properties, "0")
    deadline = time.monotonic() + _SCOPE_TIMEOUT_S
    try:
        subprocess.run(["busctl", bus, "--quiet", "call", *manager, *call], check=True, timeout=_SCOPE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return  # busctl has written the reason to stderr, which is the daemon's log
    while name not in cgroup_files.read("/proc/self/cgroup") and time.monotonic() < deadline:
        time.sleep(0.01)
