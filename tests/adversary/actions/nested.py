"""Submodules, repositories and worktrees inside the agent's worktree."""

_IDENTITY = "git config user.name T; git config user.email t@example.com\n"
_SUB = "git -c protocol.file.allow=always submodule -q update --init sub 2> /dev/null && cd sub && "

ACTIONS = {
    "commits in a submodule": (
        f"{_SUB}{{ {_IDENTITY} leave $T.txt; git add -A; git commit -qm sub; cd ..; git add sub\n"
        "git commit -qm 'moves sub'; }"
    ),
    "commits on a submodule's branch": (
        f"{_SUB}{{ {_IDENTITY} git checkout -q -b side-$T; leave $T.txt; git add -A; git commit -qm sub\n"
        "git checkout -q -; cd ..; }; leave $T-2.txt; commit"
    ),
    "leaves files in a submodule": f"{_SUB}{{ leave $T.txt; cd ..; }}; leave $T-2.txt; commit",
    "stages in a submodule": f"{_SUB}{{ leave $T.txt; git add -A; cd ..; }}; leave $T-2.txt; commit",
    "adds a submodule": (
        'git init -q "$D/origin"; git -C "$D/origin" -c user.name=T -c user.email=t@e commit -q --allow-empty -m one\n'
        'git -c protocol.file.allow=always submodule -q add "$D/origin" added-$T 2> /dev/null && cd added-$T && {\n'
        f"{_IDENTITY} leave $T.txt; git add -A; git commit -qm in; cd ..; git add -A; git commit -qm added; }}"
    ),
    "a submodule with its .git within": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm in; cd ..\n"
        "git add in-$T 2> /dev/null; git commit -qm gitlink"
    ),
    "a gitlink to nothing": (
        "leave $T.txt; git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,gone-$T\n"
        "git add $T.txt; git commit -qm gitlink"
    ),
    "a .gitmodules that leads away": (
        "printf '[submodule \"../../x\"]\\n path = sub-x\\n url = -u./x\\n update = !touch '$OUTSIDE/made'\\n' "
        ">> .gitmodules; leave $T.txt; commit"
    ),
    "a repository without a commit": "git init -q in-$T; leave in-$T/$T.txt; leave $T-2.txt; commit",
    "a repository with staged files": (
        "git init -q in-$T; leave in-$T/$T.txt; git -C in-$T add -A; leave $T-2.txt; git add $T-2.txt\ngit commit -qm x"
    ),
    "a repository with a commit": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm in\ncd ..; leave $T-2.txt"
    ),
    "a repository with a stash": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} git commit -q --allow-empty -m in; leave $T.txt\n"
        "git add -A; git stash -q; cd ..; leave $T-2.txt"
    ),
    "an ignored repository": (
        f"mkdir -p out; echo out/ >> .gitignore; commit; git init -q out/in; cd out/in; {_IDENTITY}"
        "leave $T.txt\n"
        "git add -A; git commit -qm in"
    ),
    "a bare repository": (
        'git init -q --bare bare-$T; leave $T.txt; commit; git -C bare-$T fetch -q "$W" HEAD:refs/heads/x 2> /dev/null'
    ),
    "a worktree with a commit": (
        "git worktree add -q in-$T -b in-$T && { say moved $T refs/heads/in-$T; cd in-$T; leave $T.txt; git add -A\n"
        "git commit -qm in; }"
    ),
    "a detached worktree with a commit": (
        "git worktree add -q --detach in-$T && { cd in-$T; leave $T.txt; git add -A; git commit -qm in; }"
    ),
    "a worktree with files": (
        "git worktree add -q in-$T -b in-$T && { say moved $T refs/heads/in-$T; leave in-$T/$T.txt; }"
    ),
    "a worktree of a subagent": (
        "echo .claude/ >> .gitignore; commit; git worktree add -q .claude/worktrees/x -b x-$T && {\n"
        "say moved $T refs/heads/x-$T; leave .claude/worktrees/x/$T.txt; }"
    ),
    "a worktree elsewhere": (
        'git worktree add -q "$D-else" -b else-$T && { say moved $T refs/heads/else-$T; leave $T.txt; commit; }'
    ),
    "repositories that are each other's remotes": (
        f"git init -q a-$T; cd a-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm a; cd ..\n"
        f"git init -q b-$T; cd b-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm b; cd ..\n"
        "git -C a-$T remote add o ../b-$T; git -C a-$T fetch -q o\n"
        "git -C b-$T remote add o ../a-$T; git -C b-$T fetch -q o"
    ),
    "a clone of a repository within": (
        f"git init -q a-$T; cd a-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm a; cd ..\n"
        f"git clone -q a-$T b-$T && cd b-$T && {{ {_IDENTITY} leave $T-2.txt; git add -A; git commit -qm b\n"
        "git push -q origin HEAD:refs/heads/more; }"
    ),
    "a repository that is its own remote": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm in\n"
        "git remote add origin .; git fetch -q origin"
    ),
    "a repository that has pushed to the agent's": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} leave $T.txt; git add -A; git commit -qm in\n"
        'git remote add origin "$C"; git push -q origin HEAD:refs/heads/pushed-$T && say moved $T refs/heads/pushed-$T'
    ),
    "a repository with commits reset away": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} git commit -q --allow-empty -m in; leave $T.txt; git add -A\n"
        "git commit -qm more; git reset -q --hard HEAD~1"
    ),
    "a repository with hidden edits": (
        f"[ -e hid-$T ] || {{ git init -q hid-$T; cd hid-$T; {_IDENTITY} echo x > x; git add -A; git commit -qm in\n"
        "git remote add origin .; git fetch -q origin; git update-index --skip-worktree x; rewrite x; }"
    ),
    "a repository that ignores by its configuration": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} git commit -q --allow-empty -m in; echo '*' > .git/ignored\n"
        'git config core.excludesFile "$PWD/.git/ignored"; leave $T.txt'
    ),
    "a clone that borrows the agent's objects": (
        f'git clone -q --shared "$C" in-$T && cd in-$T && {{ {_IDENTITY} leave $T.txt; git add -A\n'
        "git commit -qm in; }"
    ),
    "a shallow clone": (
        f'git clone -q --depth=1 "file://$C" in-$T && cd in-$T && {{ {_IDENTITY} leave $T.txt; git add -A\n'
        "git commit -qm in; }"
    ),
    "a worktree of a repository within": (
        f"git init -q in-$T; cd in-$T; {_IDENTITY} git commit -q --allow-empty -m in; git worktree add -q ../tree-$T\n"
        "cd ../tree-$T && { leave $T.txt; git add -A; git commit -qm tree; leave $T-2.txt; }"
    ),
    "refs of a worktree within": (
        "git worktree add -q --detach in-$T && { cd in-$T; leave $T.txt; git add -A; git commit -qm in\n"
        "git update-ref refs/worktree/saved HEAD; git checkout -q --detach HEAD~1; }"
    ),
    "a stash in a submodule": f"{_SUB}{{ {_IDENTITY} leave $T.txt; git stash -q -u; cd ..; }}; leave $T-2.txt; commit",
    "commits reset away in a submodule": (
        f"{_SUB}{{ {_IDENTITY} leave $T.txt; git add -A; git commit -qm sub; git reset -q --hard HEAD~1; cd ..; }}\n"
        "leave $T-2.txt; commit"
    ),
    "hidden edits in a submodule": (
        f"{_SUB}{{ git update-index --skip-worktree shared.txt; rewrite shared.txt; cd ..; }}; leave $T-2.txt; commit"
    ),
    "a repository whose .git leads away": (
        'mkdir in-$T; echo "gitdir: $C" > in-$T/.git; leave in-$T/$T.txt; leave $T-2.txt'
    ),
    "repositories in repositories": (
        "git init -q in-$T; git init -q in-$T/in; leave in-$T/in/$T.txt; leave in-$T/$T.txt; leave $T-2.txt"
    ),
}
