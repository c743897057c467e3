"""What agents do: each action is a piece of shell script, by its name, which tells a log what must hold afterwards.

A script says into that log, a line each:

    work TOKEN N          a file with the text `work N of TOKEN` is there, and stays, even where a removal discards it
    stashed TOKEN N       that work is in the stash alone
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
W=$PWD; B=refs/heads/forkjoin/$FORKJOIN_AGENT-n-$T
IFS=  # a path is one word, whatever is in it
[ -f .git ] && D=$(cd "$(sed 's/^gitdir: //' .git)" && pwd -P) && [ -f "$D/commondir" ] || exit 0  # told once more
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
#: Every action, by its name.
ACTIONS = {name: script for family in FAMILIES.values() for name, script in family.items()}


def make_task(token: str, actions: list[str], log: str, canary: str, outside: str) -> str:
    """Return the script of an agent that carries out these actions, while git takes its folder for its own worktree."""
    scripts = [ACTIONS[name].replace("in-$T", f"in{which or ''}-$T") for which, name in enumerate(actions)]  # apart
    parts = [
        f'\nif cd "$W" && is_here; then  # {name}\n{script}\nfi' for name, script in zip(actions, scripts, strict=True)
    ]
    script = _PRELUDE + "".join(parts) + _END
    values = {"@TOKEN@": token, "@LOG@": log, "@CANARY@": canary, "@OUTSIDE@": outside}
    for placeholder, value in values.items():
        script = script.replace(placeholder, value)
    return script
