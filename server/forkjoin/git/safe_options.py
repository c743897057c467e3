"""Options and environment variables that every call of git gets.

They keep git from running hooks and file-system monitors, from prompting, and from reading `GIT_*` variables of this
process. Other commands that a repository's configuration names are overridden in git_config.py.
"""

import os
from collections.abc import Mapping

#: Options in front of the subcommand.
OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    # With other values, git would not notice a change that keeps a file's size.
    *("-c", "core.checkStat=default", "-c", "core.trustctime=true"),
    *("-c", "core.ignoreStat=false"),  # with true, git would not notice changes to files that it checked out
    *("-c", "commit.gpgSign=false"),
    *("-c", "log.showSignature=false"),
    *("-c", "i18n.logOutputEncoding=UTF-8", "-c", "i18n.commitEncoding=UTF-8"),
    *("-c", "maintenance.auto=false"),
    *("-c", "gc.auto=0"),
    *("-c", "diff.autoRefreshIndex=false"),
    *("-c", "submodule.recurse=false"),
    *("-c", "safe.bareRepository=all"),  # git may use a bare repository, because each call names the git folder
    # The fsync method "batch" loses objects if a gc runs at the same time.
    *("-c", "core.fsync=committed", "-c", "core.fsyncMethod=fsync"),
    # Milliseconds that git waits for a lock on a ref. Its own defaults are 100 ms for one ref and 1 s for packed-refs,
    # which is too short while `git gc` rewrites packed-refs.
    *("-c", "core.filesRefLockTimeout=10000"),
    *("-c", "core.packedRefsTimeout=10000"),
    *("-c", "reftable.lockTimeout=10000"),
)

#: Options for a call that writes many objects. The caller flushes all of these at once, with `sync_objects`.
NO_FSYNC = ("-c", "core.fsync=none")

#: Environment variables of every call. They switch off replacement refs and grafts, with which an agent can make one
#: object appear as another. git warns of a graft file that exists, even of an empty one (read_graft_file in its
#: commit.c). Therefore the path of the graft file is one that can't exist.
_VARIABLES = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": f"{os.devnull}/none",
    "LC_ALL": "C",
}


def safe_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for git: this process's, without `GIT_*`.

    The variables above and `extra` are added.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**inherited, **_VARIABLES, **(extra or {})}
