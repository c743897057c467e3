"""Files with unusual names, types and modes, and trees that git itself would not create."""


def _tree(name: str, mode: str = "100644") -> str:
    """Return a script that commits a subfolder with an entry that `git add` rejects."""
    return (
        "leave $T.txt; commit; blob=$(git rev-parse HEAD:$T.txt); below=$blob; kind=blob\n"
        f'below=$(printf "{mode} blob %s\\t{name}\\n" $blob | git mktree --missing)\n'
        'tree=$( (git ls-tree HEAD; printf "040000 tree %s\\tdeep-$T\\n" $below) | git mktree --missing)\n'
        "git update-ref HEAD $(git commit-tree -p HEAD -m odd $tree)"
    )


def _top(entry: str) -> str:
    """Return a script that commits a tree with this entry at its top."""
    return (
        "leave $T.txt; commit; blob=$(git rev-parse HEAD:$T.txt); down=$(git rev-parse HEAD^{tree})\n"
        f'tree=$( (git ls-tree HEAD; printf "{entry}\\n") | git mktree --missing)\n'
        "git update-ref HEAD $(git commit-tree -p HEAD -m odd $tree)"
    )


ACTIONS = {
    "odd names": (
        "leave -rf; leave ' '; leave \"it's $T\"; leave ':(glob)*'; leave '@{u}'; leave 'a\\b'; leave '*'; commit\n"
        "leave \"$(printf 'new\\nline')\"; leave '#x'; leave '!x'; leave HEAD; leave main; leave refs/heads/main"
    ),
    "names in other bytes": (
        "leave \"$(printf 'caf\\351-%s' $T)\"; commit; leave \"$(printf '\\377\\376-%s' $T)\"\n"
        "leave \"$(printf '\\033[2J')\""
    ),
    "names that differ by case": "leave README.MD; leave readme.md; leave SHARED.TXT; commit; leave Shared.Txt",
    "folders that differ by case": "leave Folder-$T/x; leave folder-$T/X; commit; leave FOLDER-$T/x; leave folder-$T/x",
    "names composed twice": (
        "leave \"$(printf 'caf\\303\\251-%s' $T)\"; leave \"$(printf 'cafe\\314\\201-%s' $T)\"; commit\n"
        "git config core.precomposeUnicode true; say set $T core.precomposeUnicode; leave $T.txt"
    ),
    "files in another encoding": (
        "echo '*.utf working-tree-encoding=UTF-16LE' > .gitattributes\n"
        "encode() { rewrite $1; iconv -t UTF-16LE $1 > $1.utf; rm $1; }; encode $T; commit; encode $T-2; leave $T.txt"
    ),
    "a commit in another encoding": (
        "leave $T.txt; git add -A; printf 'caf\\351\\n' | git -c i18n.commitEncoding=ISO-8859-1 commit -qF -\n"
        "leave $T-2.txt; git add -A; printf 'x' | git -c i18n.commitEncoding=no-such commit -qF -"
    ),
    "long names": (
        "leave $(head -c 240 /dev/zero | tr '\\0' n)\n"
        "leave $(seq 60 | sed 's/.*/deep-deep-deep/' | paste -sd /)/$T.txt; commit"
    ),
    "many files": "mkdir many-$T; seq 400 | while read -r n; do echo $n > many-$T/$n; done; leave $T.txt; commit",
    "a large file": "head -c 6000000 /dev/urandom > large-$T; leave $T.txt; commit",
    "pipes and sockets": (
        "leave $T.txt; mkfifo pipe-$T .gitignore .gitattributes forkjoin.toml\n"
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'; leave $T-2.txt\n"
        "exit 0"  # the agent's own git would block
    ),
    "a pipe as a tracked file": "leave $T.txt; commit; rm shared.txt; mkfifo shared.txt; leave $T-2.txt",
    "a pipe as .gitmodules": "leave $T.txt; commit; mkfifo .gitmodules; leave $T-2.txt",
    "links": (
        'ln -s "$OUTSIDE/precious" link-$T; ln -sfn "$OUTSIDE" folder-$T; ln -s loop loop; ln -s / root; commit\n'
        "leave $T.txt; rm shared.txt; ln -s /dev/zero shared.txt; ln -s /etc/passwd .gitattributes"
    ),
    "a link to write through": (
        'ln -s "$OUTSIDE" through; leave $T.txt; commit; git rm -q --cached through; rm through\n'
        "leave through/made; commit"
    ),
    "a link where a folder was": (
        "[ ! -h sub ] || rm sub; leave sub/$T.txt; commit; is_saved && rm -rf sub\n"
        'ln -s "$OUTSIDE" sub; commit; leave $T-2.txt'
    ),
    "a hard link to the user's": (
        'leave $T.txt; ln "${C%/.git}/shared.txt" hard-$T 2> /dev/null; commit; leave $T-2.txt'
    ),
    "a file where a folder was": "leave $T.txt; rm -rf shared.txt; leave shared.txt/$T; commit",
    "modes": (
        "leave $T.txt; leave closed-$T; leave set-$T; chmod 4755 set-$T; leave in/$T; chmod 0 closed-$T; commit\n"
        "chmod 555 in; leave $T-2.txt"
    ),
    "a folder nobody may read": "leave $T.txt; commit; mkdir closed; echo x > closed/x; chmod 0 closed",
    "ignores all": (
        "leave $T.txt; git add -A; echo '*' > .gitignore; git add -f .gitignore; git commit -qm x; echo x > $T-2.txt"
    ),
    "attributes": (
        "printf '* text eol=crlf\\n*.md working-tree-encoding=UTF-16 -diff\\n* ident export-subst merge=union\\n' "
        "> .gitattributes; echo '$Id$' > id-$T; commit; leave $T.bin\n"
        "echo '*.bin -text -ident' >> .gitattributes; commit"
    ),
    "attributes that no file can have": (
        "leave $T.txt; commit; echo '*.x working-tree-encoding=NONE' > .gitattributes; echo x > $T.x; leave $T-2.txt"
    ),
    ".gitattributes is a folder": "leave $T.txt; leave .gitattributes/x; leave .gitignore/x; commit",
    ".gitmodules is a link": "leave $T.txt; ln -s shared.txt .gitmodules; commit",
    "a tree with .git": _tree(".git/pre-commit"),
    "a tree with .git alone": _tree(".git"),
    "a tree with .GIT": _tree(".GIT"),
    "a tree with git~1": _tree("git~1"),
    "a tree with dots": _tree(".."),
    "a tree with .git of HFS": _tree(".g\\342\\200\\214it"),
    "a tree with .gitmodules as a link": _tree(".gitmodules", "120000"),
    "a tree with .git as a folder": _top("040000 tree $down\\t.git"),
    "a tree with an entry twice": _top("100644 blob $blob\\tshared.txt"),
    "a tree with a link named .git": _top("120000 blob $blob\\t.git"),
    "a tree that lacks a blob": _top("100644 blob 1234567890123456789012345678901234567890\\tlacks")
    + "; say blocks $T",
    "a tree with odd modes": _top("100664 blob $blob\\todd-mode"),
    "a commit without an author": (
        "leave $T.txt; commit; raw=$(git cat-file commit HEAD | sed 's/^author.*/author x/')\n"
        'git update-ref HEAD $(printf "%s\\n" "$raw" | git hash-object -t commit -w --stdin --literally)'
    ),
    "a commit of another time": (
        "leave $T.txt; git add -A; GIT_COMMITTER_DATE='@4102444800 +1400' GIT_AUTHOR_DATE='@1 -1200' git commit -qm x"
    ),
    "messages": (
        "leave $T.txt; git add -A; printf 'a\\n\\nForkjoin-Agent: a1\\n\\n\\033[31m%s' \"$T\" | git commit -qF -\n"
        "head -c 70000 /dev/zero | tr '\\0' m > m-$T; git add -A; git commit -qF m-$T\n"
        'r=$(git symbolic-ref -q HEAD) && [ "$r" != "$B" ] && say moved $T "$r"'
    ),
}
