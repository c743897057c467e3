"""What agents do: each action is a piece of shell script, by its name, which tells a log what must hold afterwards.

A script says into that log, a line each:

    work TOKEN N          a file with the text `work N of TOKEN` is there, and stays, even where a removal discards it
    moved TOKEN REF       this ref was moved, made or deleted by the agent itself, which its lead must be told
    set TOKEN WHAT        the shared configuration or a hook was changed, which its lead must be told
    blocks TOKEN          the repository may be of no more use until a person mends it; refusals in words will do
    token TOKEN           the token of an agent, which nobody may be shown
    locked TOKEN          a lock was left in what all share
    peeked TOKEN WHAT     the agent has read what is another's
"""

from adversary.actions import configuration, folders, identity, nested, refs, trees, work

_PRELUDE = r"""
T=@TOKEN@; N=0; LOG='@LOG@'; CANARY='@CANARY@'; OUTSIDE='@OUTSIDE@'
C=$(git rev-parse --path-format=absolute --git-common-dir)
D=$(git rev-parse --absolute-git-dir); B=$(git symbolic-ref HEAD); W=$PWD
say() { printf '%s\n' "$*" >> "$LOG"; }
leave() {
  N=$((N+1)); f=./$1; [ ! -e "$f" ] || f=$f-$N; mkdir -p "${f%/*}"
  printf 'work %s of %s\n' $N $T > "$f" && say "work $T $N"
}
commit() { git add -A . ; git commit -qm "work of $T"; }
others() { git for-each-ref --format='%(refname)' refs/heads/forkjoin/ | grep -v "^$B\$"; }
"""
_END = '\ncd "$W"; echo "secret of $T"; true\n'

FAMILIES = {
    "work": work.ACTIONS,
    "refs": refs.ACTIONS,
    "configuration": configuration.ACTIONS,
    "folders": folders.ACTIONS,
    "trees": trees.ACTIONS,
    "nested": nested.ACTIONS,
    "identity": identity.ACTIONS,
}
#: Every action, by its name.
ACTIONS = {name: script for family in FAMILIES.values() for name, script in family.items()}


def make_task(token: str, actions: list[str], log: str, canary: str, outside: str) -> str:
    """Return the script of an agent that carries out these actions, one after another."""
    parts = [f'\ncd "$W"\n# {name}\n{ACTIONS[name]}' for name in actions]
    script = _PRELUDE + "".join(parts) + _END
    values = {"@TOKEN@": token, "@LOG@": log, "@CANARY@": canary, "@OUTSIDE@": outside}
    for placeholder, value in values.items():
        script = script.replace(placeholder, value)
    return script
