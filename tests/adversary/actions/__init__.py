"""The actions of agents: shell scripts by name, which log the facts that the check needs afterwards.

A script can log these lines:

    work TOKEN N          a file with the text `work N of TOKEN` exists, which even a removal that discards must keep
    stashed TOKEN N       only the stash has that file
    moved TOKEN REF       the agent itself moved, created or deleted the ref; a result must report that
    set TOKEN NAME        the agent changed shared configuration or a hook; a result must report that
    blocks TOKEN          the repository may be unusable until a person repairs it; calls may fail with errors
    token TOKEN           an agent's authentication token, which no answer may contain
    locked TOKEN          the agent left a lock in the common git folder
    peeked TOKEN NAME     the agent has read another agent's log
"""

from adversary.actions import configuration, folders, identity, nested, refs, trees, work

_PRELUDE = r"""
T=@TOKEN@; N=0; LOG='@LOG@'; CANARY='@CANARY@'; OUTSIDE='@OUTSIDE@'
W=$PWD; B=refs/heads/forkjoin/$FORKJOIN_AGENT-n-$T
IFS=  # a path is one word, even if it contains spaces
[ -f .git ] && D=$(cd "$(sed 's/^gitdir: //' .git)" && pwd -P) && [ -f "$D/commondir" ] || exit 0  # a second run
C=$(cd "$D/$(cat "$D/commondir")" && pwd -P)  # asked of no git: another agent may have broken its configuration
say() (IFS=' '; printf '%s\n' "$*" >> "$LOG")
ignores() { [ -f .gitignore ] && grep -qx '[*]' .gitignore; }  # of its own accord: that is no work
put() { N=$((N+1)); printf 'work %s of %s\n' $N $T > "$1"; }
rewrite() { [ ! -p "$1" ] && put "$1" && ! ignores && say "work $T $N"; }
stash() {  # git itself overwrites hidden edits and, where core.worktree leads elsewhere, deletes a file unstashed
  ! git ls-files -v | grep -q '^[a-zS]' || return
  put s$N-$T.txt; git stash -q -u -m "of $T"; say moved $T refs/stash
  git cat-file -e stash^3:s$((N-1))-$T.txt && say work $T $N && say stashed $T $N
}
leave() { f=./$1; [ ! -e "$f" ] || f=$f-$N; mkdir -p "${f%/*}"; rewrite "$f"; }
commit() {
  git add -A . ; git commit -qm "work of $T" || return
  r=$(git rev-parse --symbolic-full-name HEAD); case $r in ''|HEAD|"$B") ;; *) say moved $T "$r";; esac
}
others() { git for-each-ref --format='%(refname)' refs/heads/forkjoin/ | grep -v "^$B\$"; }
is_saved() { s=$(git status --porcelain --ignored) && [ -z "$s" ]; }
is_here() { g=$(git rev-parse --absolute-git-dir 2> /dev/null); case $g in ''|"$D"|"$W"|"$W"/*) ;; *) false;; esac; }
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
#: All actions by name.
ACTIONS = {name: script for family in FAMILIES.values() for name, script in family.items()}


def make_task(token: str, actions: list[str], log: str, canary: str, outside: str) -> str:
    """Return the script of an agent that carries out these actions.

    An action is skipped if an earlier one has changed which git folder the worktree belongs to.
    """
    scripts = [
        ACTIONS[name].replace("in-$T", f"in{which or ''}-$T") for which, name in enumerate(actions)
    ]  # unique names
    parts = [
        f'\nif cd "$W" && is_here; then  # {name}\n{script}\nfi' for name, script in zip(actions, scripts, strict=True)
    ]
    script = _PRELUDE + "".join(parts) + _END
    values = {"@TOKEN@": token, "@LOG@": log, "@CANARY@": canary, "@OUTSIDE@": outside}
    for placeholder, value in values.items():
        script = script.replace(placeholder, value)
    return script
