"""Changes to refs, symbolic refs and HEAD: the agent's own, the user's, other agents' and forkjoin's."""

_OTHER_HEAD = "leave $T.txt; commit; tip=$(git rev-parse HEAD)\n"

ACTIONS = {
    "own branch stands for main": "git symbolic-ref $B refs/heads/main; leave $T.txt",
    "own branch stands for release": "leave $T.txt; commit; git symbolic-ref $B refs/heads/release; leave $T-2.txt",
    "own branch stands for itself": "leave $T.txt; commit; rm -f $C/$B; echo ref: $B > $C/$B",
    "own branch stands for another's": (
        'leave $T.txt; commit; other=$(others | head -1); [ -z "$other" ] || git symbolic-ref $B $other'
    ),
    "own branch stands for nothing": "leave $T.txt; commit; git symbolic-ref $B refs/heads/none-$T; leave $T-2.txt",
    "HEAD stands for main": "git symbolic-ref HEAD refs/heads/main; leave $T.txt",
    "HEAD stands for release": "git symbolic-ref HEAD refs/heads/release; leave $T.txt",
    "commits on release": "git checkout -q release && { leave $T.txt; commit; say moved $T refs/heads/release; }",
    "stays on a branch of its own": (
        "git checkout -q -b mine-$T && { leave $T.txt; commit; say moved $T refs/heads/mine-$T; }"
    ),
    "stays on release": "leave $T.txt; commit; git checkout -q release; leave $T-2.txt",
    "detaches": "git checkout -q --detach; leave $T.txt; commit; leave $T-2.txt",
    "starts an orphan": "git checkout -q --orphan orphan-$T; leave $T.txt; commit; say moved $T refs/heads/orphan-$T",
    "deletes its branch": "leave $T.txt; commit; git update-ref -d $B; leave $T-2.txt",
    "renames its branch": "leave $T.txt; commit; git branch -m new-$T; say moved $T refs/heads/new-$T",
    "puts its branch back": "leave $T.txt; commit; git checkout -q --detach; git update-ref $B HEAD~1",
    "puts its branch on main": "leave $T.txt; commit; git checkout -q --detach; git update-ref $B refs/heads/main",
    "moves main": f"{_OTHER_HEAD}git update-ref refs/heads/main $tip && say moved $T refs/heads/main && say blocks $T",
    "moves release": f"{_OTHER_HEAD}git update-ref refs/heads/release $tip && say moved $T refs/heads/release",
    "deletes release": "leave $T.txt; git update-ref -d refs/heads/release && say moved $T refs/heads/release",
    "release stands for main": (
        "leave $T.txt; git symbolic-ref refs/heads/release refs/heads/main && say moved $T refs/heads/release"
    ),
    "moves others": (
        f"{_OTHER_HEAD}others | while read -r ref; do [ $(git rev-parse $ref) = $(git rev-parse $tip) ] ||\n"
        "{ git update-ref $ref $tip && say moved $T $ref; }; done"
    ),
    "deletes others": (
        "leave $T.txt; others | while read -r ref; do git update-ref --no-deref -d $ref && say moved $T $ref; done"
    ),
    "others stand for release": (
        "leave $T.txt; others | while read -r ref; do\n"
        "git symbolic-ref $ref refs/heads/release && say moved $T $ref; done"
    ),
    "plants a stream": "leave $T.txt; commit; git symbolic-ref refs/forkjoin/stream refs/heads/release",
    "plants kept refs": (
        "leave $T.txt; s=${B#refs/heads/forkjoin/}; git symbolic-ref refs/forkjoin/kept/$s refs/heads/release\n"
        "git update-ref refs/forkjoin/kept/$s-2/deeper HEAD"
    ),
    "a folder where its branch is": (
        "leave $T.txt; commit; git checkout -q --detach; git update-ref -d $B; git update-ref $B/below HEAD\n"
        "say moved $T $B/below"
    ),
    "tags HEAD": "leave $T.txt; commit; git update-ref refs/tags/HEAD HEAD~1 && say moved $T refs/tags/HEAD",
    "tags as its branch": (
        "leave $T.txt; commit; t=refs/tags/${B#refs/heads/}; git update-ref $t HEAD~1 && say moved $T $t"
    ),
    "tags as main": "leave $T.txt; git update-ref refs/tags/main HEAD && say moved $T refs/tags/main",
    "a branch called HEAD": "leave $T.txt; commit; git update-ref refs/heads/HEAD HEAD && say moved $T refs/heads/HEAD",
    "a broken ref": "leave $T.txt; commit; : > $C/refs/heads/broken-$T; say moved $T refs/heads/broken-$T",
    "a ref to nothing": (
        "leave $T.txt; commit; echo 1234567890123456789012345678901234567890 > $C/refs/heads/null-$T\n"
        "say moved $T refs/heads/null-$T; say blocks $T"
    ),
    "replaces main's commit": (
        f"{_OTHER_HEAD}git replace $(git rev-parse main) $tip && say moved $T refs/replace/$(git rev-parse main)"
    ),
    "replaces its own": (
        "leave $T.txt; commit; one=$(git rev-parse HEAD); leave $T-2.txt; commit\n"
        "git replace $(git rev-parse HEAD) $one && say moved $T refs/replace/$(git rev-parse HEAD)"
    ),
    "notes": "leave $T.txt; commit; git notes add -m note HEAD && say moved $T refs/notes/commits",
    "keeps it in refs of its worktree": (
        "leave $T.txt; commit; git update-ref refs/worktree/saved HEAD; git reset -q --hard HEAD~1; leave $T-2.txt"
    ),
    "keeps it in refs that no gc sees": (
        'leave $T.txt; commit; git rev-parse HEAD > "$D/FETCH_HEAD"; git update-ref -d ORIG_HEAD\n'
        "git update-ref refs/rewritten/saved HEAD; git reset -q --hard HEAD~1; leave $T-2.txt"
    ),
    "gc": "leave $T.txt; commit; git gc -q --prune=now; git pack-refs --all",
    "expires reflogs": "leave $T.txt; commit; leave $T-2.txt; git reflog expire --expire=now --all; git repack -qad",
}
