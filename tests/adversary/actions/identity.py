"""Agents that claim to be a person or another agent, read other agents' logs, or flood the daemon's socket."""

_AS_PERSON = "merge --into release a1 a2|rm a1 a2|stop a1 a2|budget 5|spawn intruder|undo"


def _forge(how: str, most: int = 2, where: str = ".") -> str:
    """Return a script that runs some of a person's commands in this folder.

    `how` is the prefix of each command line.

    Each command takes half a second, so only `most` of them are run.
    """
    return (
        f'leave $T.txt; commit; cd "{where}"; n=$(printf %s $T | tr -dc 0-9)\n'
        f"echo '{_AS_PERSON}' | tr '|' '\\n' | (sed -n \"$((n % 3 + 1))~3p\"; true) | head -{most} |\n"
        f"xargs -L1 {how} forkjoin > /dev/null 2>&1"
    )


#: A script that opens connections and sends nothing, a hello, or an unfinished line.
_FLOOD = """leave $T.txt; commit; cd "$FORKJOIN_HOME" && python3 - "$FORKJOIN_TOKEN" <<'END'
import json, os, socket, sys, time
held = []
for n in range(%d):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(2)
    try:
        one.connect("daemon.sock")
        %s
    except OSError:
        pass
    held.append(one)
time.sleep(0.3)
END
"""

_HELLO = (
    'json.dumps({"protocol": 1, "version": "0", "kind": "relay", "relay": str(n), "cwd": "/", "token": sys.argv[1]})'
    '.encode() + b"\\n"'
)

ACTIONS = {
    "acts without its token": _forge("env -u FORKJOIN_TOKEN"),
    "acts without a mark": _forge("env -u FORKJOIN_TOKEN -u FORKJOIN_MARK -u FORKJOIN_AGENT"),
    "acts in an empty environment": _forge('env -i PATH="$PATH" HOME="$HOME" FORKJOIN_HOME="$FORKJOIN_HOME"'),
    "acts in a session of its own": _forge("setsid env -u FORKJOIN_TOKEN -u FORKJOIN_MARK"),
    "acts as another agent": (
        "leave $T.txt; commit; for one in /proc/[0-9]*/environ; do t=$(tr '\\0' '\\n' < $one 2> /dev/null |\n"
        'sed -n \'s/^FORKJOIN_TOKEN=//p\'); [ -z "$t" ] || [ "$t" = "$FORKJOIN_TOKEN" ] ||\n'
        "FORKJOIN_TOKEN=$t forkjoin merge --into release a1 > /dev/null 2>&1 < /dev/null; done"
    ),
    "acts from the user's checkout": _forge("env -u FORKJOIN_TOKEN", 1, "${C%/.git}"),
    "reads others' logs": (
        'leave $T.txt; for one in a1 a2 a3; do [ $one = "$FORKJOIN_AGENT" ] || {\n'
        "forkjoin logs $one < /dev/null 2> /dev/null | grep -q 'secret of t' && say peeked $T $one; }; done; commit"
    ),
    "reads others' logs as a person": (
        'leave $T.txt; for one in a1 a2; do [ $one = "$FORKJOIN_AGENT" ] || {\n'
        "env -u FORKJOIN_TOKEN forkjoin logs $one < /dev/null 2> /dev/null | grep -q 'secret of t' &&\n"
        "say peeked $T $one; }; done; commit"
    ),
    "floods with connections": _FLOOD % (300, "pass"),
    "floods with hellos": _FLOOD % (60, f"one.sendall({_HELLO})"),
    "floods with half a line": _FLOOD % (6, "one.sendall(b'x' * 4000000)"),
    "sends rubbish": _FLOOD % (5, "one.sendall(os.urandom(3000) + b'\\n{}\\n[[[[\\n')"),
    #: What merges run as verify, where it is there: see `plan.VERIFY`.
    "verify acts as a person": (
        "leave $T.txt; printf '%s\\n' 'forkjoin merge --into release a1 a2 < /dev/null' "
        "'forkjoin spawn intruder < /dev/null' > check.sh; commit"
    ),
    "verify leaves a poison": (
        "leave $T.txt; printf '%s\\n' 'mkdir -p poison; echo \"*\" > poison/.gitignore; touch poison/ok; "
        'mkdir -p "$(git rev-parse --git-common-dir)/info"; exit 1\' > check.sh; commit'
    ),
}
