"""Pipes, links, locks and rubbish in git folders, where git or forkjoin opens a file."""


def _pipe(file: str) -> str:
    return f'leave $T.txt; commit; leave $T-2.txt; rm -rf "{file}"; mkdir -p "$(dirname "{file}")"; mkfifo "{file}"'


ACTIONS = {
    # -- in the agent's own worktree and git folder
    "a pipe as its reflog": _pipe("$D/logs/HEAD") + "; rm -f $C/$B",
    "a pipe as its index": _pipe("$D/index"),
    "a pipe as its sparse patterns": "git config core.sparseCheckout true; say set $T core.sparseCheckout; "
    + _pipe("$D/info/sparse-checkout"),
    "a pipe as HEAD": _pipe("$D/HEAD"),
    "a pipe as gitdir": _pipe("$D/gitdir"),
    "a pipe as commondir": _pipe("$D/commondir"),
    "a pipe as MERGE_HEAD": _pipe("$D/MERGE_HEAD"),
    "a pipe as config.worktree": (
        "git config extensions.worktreeConfig true; say set $T extensions.worktreeConfig; "
        + _pipe("$D/config.worktree")
    ),
    "a pipe as forkjoin's files": (
        "leave $T.txt; commit; rm -f $D/forkjoin-*; mkfifo $D/forkjoin-task $D/forkjoin-ignore $D/forkjoin-setup"
    ),
    "a pipe as its .git": "leave $T.txt; commit; leave $T-2.txt; rm .git; mkfifo .git",
    "rubbish as its index": "leave $T.txt; commit; leave $T-2.txt; echo rubbish > $D/index",
    "rubbish as HEAD": "leave $T.txt; commit; leave $T-2.txt; echo rubbish > $D/HEAD",
    "rubbish as gitdir": "leave $T.txt; commit; echo /nowhere/.git > $D/gitdir",
    "its .git leads to the user's": 'leave $T.txt; commit; leave $T-2.txt; echo "gitdir: $C" > .git',
    "its .git is a repository": "leave $T.txt; commit; leave $T-2.txt; rm .git; git init -q . 2> /dev/null",
    "its .git is a link": 'leave $T.txt; commit; leave $T-2.txt; rm .git; ln -s "$C" .git',
    "its .git is gone": "leave $T.txt; commit; leave $T-2.txt; rm .git",
    "its folder is a link outside": (
        'leave $T.txt; commit; cd ..; mv "$W" "$W-moved"; ln -s "$OUTSIDE" "$W"; W="$W-moved"'
    ),
    "its folder is a link to the user's": (
        'leave $T.txt; commit; cd ..; mv "$W" "$W-moved"; ln -s "${C%/.git}" "$W"; W="$W-moved"'
    ),
    "its folder is gone": 'leave $T.txt; commit; is_saved && cd "$C" && rm -rf "$W"',
    "its folder is locked": "leave $T.txt; commit; git worktree lock .",
    "its folder is moved": 'leave $T.txt; commit; git worktree move . "$W-moved" && W="$W-moved"',
    "prunes worktrees": "leave $T.txt; commit; git worktree prune --expire=now",
    "its git folder is gone": 'leave $T.txt; commit; leave $T-2.txt; rm -rf "$D"',
    "locks of its own": "leave $T.txt; commit; leave $T-2.txt; touch $D/index.lock $D/HEAD.lock $C/$B.lock",
    "a lock that is a folder": "leave $T.txt; commit; leave $T-2.txt; mkdir $D/index.lock",
    "a lock that is a link": 'leave $T.txt; commit; leave $T-2.txt; ln -s "$OUTSIDE/precious" $D/index.lock',
    "a log that is a link": (
        "[ ! -h $D/logs/HEAD ] || exit 0; leave $T.txt; commit\n"
        "rm -f $D/logs/HEAD $C/logs/$B; ln -s $OUTSIDE/precious $D/logs/HEAD\n"
        'ln -s "$OUTSIDE/precious" "$C/logs/$B"; leave $T-2.txt; exit 0'
    ),
    "links where forkjoin writes": (
        "leave $T.txt; commit; for one in forkjoin-task forkjoin-task.new forkjoin-ignore ORIG_HEAD forkjoin-index\n"
        'do rm -f "$D/$one"; ln -s "$OUTSIDE/precious" "$D/$one"; done'
    ),
    # -- in the common git folder
    "a lock on main": "leave $T.txt; commit; touch $C/refs/heads/main.lock; say locked $T; say blocks $T",
    "a lock on packed refs": "leave $T.txt; commit; touch $C/packed-refs.lock; say locked $T; say blocks $T",
    "a lock on the configuration": "leave $T.txt; commit; touch $C/config.lock; say locked $T",
    "a pipe as info/exclude": _pipe("$C/info/exclude") + "; say set $T info/exclude; say blocks $T",
    "a pipe as info/attributes": _pipe("$C/info/attributes") + "; say set $T info/attributes; say blocks $T",
    "a pipe as info/grafts": _pipe("$C/info/grafts") + "; say set $T info/grafts; say blocks $T",
    "a pipe as shallow": _pipe("$C/shallow") + "; say blocks $T",
    "a pipe as alternates": _pipe("$C/objects/info/alternates") + "; say blocks $T",
    "a pipe as a ref": _pipe("$C/refs/heads/pipe-$T") + "; say moved $T refs/heads/pipe-$T; say blocks $T",
    "a pipe as main's log": _pipe("$C/logs/refs/heads/main") + "; say blocks $T",
    "a pipe as a hook": "leave $T.txt; commit; mkdir -p $C/hooks; mkfifo $C/hooks/pre-commit; say set $T hooks",
    "a pipe that is included": (
        "leave $T.txt; commit; mkfifo $D/more; git config include.path $D/more; say set $T include.path\nsay blocks $T"
    ),
    "a pipe as forkjoin.lock": "leave $T.txt; commit; rm -f $C/forkjoin.lock; mkfifo $C/forkjoin.lock; say blocks $T",
    "a link as forkjoin.lock": (
        'leave $T.txt; commit; rm -f $C/forkjoin.lock; ln -s "$OUTSIDE/made" $C/forkjoin.lock; say blocks $T'
    ),
    "a graft": ("leave $T.txt; commit; mkdir -p $C/info; git rev-parse main > $C/info/grafts; say set $T info/grafts"),
    "a lie of depth": "leave $T.txt; commit; git rev-parse main >> $C/shallow; say blocks $T",
    "other alternates": 'leave $T.txt; commit; echo "$OUTSIDE" >> $C/objects/info/alternates',
    "a socket in the git folder": (
        "leave $T.txt; commit; python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' $D/s"
    ),
    "a commit graph of rubbish": (
        "leave $T.txt; commit; mkdir -p $C/objects/info; echo rubbish > $C/objects/info/commit-graph"
    ),
}
