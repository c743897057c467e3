"""Changes to shared configuration, hooks and attributes that make git run programs or change what git writes."""

_HOOKS = (
    "pre-commit commit-msg post-commit post-checkout post-merge post-index-change reference-transaction "
    "fsmonitor-watchman pre-auto-gc post-rewrite prepare-commit-msg pre-merge-commit update pre-push"
)


def _set(name: str, value: str) -> str:
    return f'git config {name} "{value}" && say set $T {name}\n'


def _driver(key: str, attribute: str) -> str:
    """Return a script that configures a driver and commits an attribute that uses it."""
    return _set(key, "$CANARY") + f"echo '* {attribute}' >> .gitattributes; echo $T >> shared.txt; leave $T.txt; commit"


ACTIONS = {
    "names itself": _set("user.name", "Claude") + _set("user.email", "noreply@example.com") + "leave $T.txt; commit",
    "core.worktree above": "leave $T.txt; commit; " + _set("core.worktree", "../..") + "say blocks $T",
    "core.worktree outside": "leave $T.txt; commit; " + _set("core.worktree", "$OUTSIDE") + "say blocks $T",
    "core.bare": "leave $T.txt; commit; " + _set("core.bare", "true") + "say blocks $T",
    "core.hooksPath": (
        "mkdir -p $D/h; for one in "
        + _HOOKS
        + "; do cp $CANARY $D/h/$one; done; "
        + _set("core.hooksPath", "$D/h")
        + "leave $T.txt; commit"
    ),
    "hooks": (
        "mkdir -p $C/hooks; for one in " + _HOOKS + "; do cp $CANARY $C/hooks/$one; done; say set $T hooks\n"
        "leave $T.txt; commit"
    ),
    "fsmonitor": _set("core.fsmonitor", "$CANARY") + "leave $T.txt; commit",
    "a clean filter": _driver("filter.evil.clean", "filter=evil"),
    "a smudge filter": _driver("filter.evil.smudge", "filter=evil"),
    "a process filter": _driver("filter.evil.process", "filter=evil"),
    "a required filter": _set("filter.evil.required", "true") + _driver("filter.evil.clean", "filter=evil"),
    "a merge driver": _driver("merge.evil.driver", "merge=evil"),
    "a textconv": _driver("diff.evil.textconv", "diff=evil"),
    "a diff command": _driver("diff.evil.command", "diff=evil"),
    "an external diff": _set("diff.external", "$CANARY") + "leave $T.txt; commit",
    "a pager": _set("core.pager", "$CANARY") + _set("pager.log", "$CANARY") + "leave $T.txt; commit",
    "an editor": _set("core.editor", "$CANARY") + _set("sequence.editor", "$CANARY") + "leave $T.txt; commit",
    "a signer": (
        _set("gpg.program", "$CANARY")
        + _set("commit.gpgSign", "true")
        + _set("log.showSignature", "true")
        + "leave $T.txt; commit"
    ),
    "an ssh command": _set("core.sshCommand", "$CANARY")
    + _set("credential.helper", "!$CANARY")
    + "leave $T.txt; commit",
    "a trailer command": _set("trailer.sign.command", "$CANARY") + "leave $T.txt; commit",
    "an alias": _set("alias.status", "!$CANARY") + _set("alias.merge-tree", "!$CANARY") + "leave $T.txt; commit",
    "an include": (
        "printf '[core]\\n fsmonitor = %s\\n' $CANARY > $D/more; "
        + _set("include.path", "$D/more")
        + "leave $T.txt; commit"
    ),
    "a submodule command": (
        _set("submodule.evil.update", "!$CANARY") + _set("submodule.recurse", "true") + "leave $T.txt; commit"
    ),
    "an attributes file": (
        "echo '* filter=evil' > $D/attributes; "
        + _set("core.attributesFile", "$D/attributes")
        + _set("filter.evil.clean", "$CANARY")
        + "leave $T.txt; commit"
    ),
    "info/attributes": (
        "mkdir -p $C/info; echo '* filter=evil' > $C/info/attributes; say set $T info/attributes\n"
        + _set("filter.evil.smudge", "$CANARY")
        + "leave $T.txt; commit"
    ),
    "info/exclude": (
        "leave $T.txt; mkdir -p $C/info; echo '*' > $C/info/exclude; say set $T info/exclude; leave $T-2.txt"
    ),
    "an excludes file": (
        "leave $T.txt; echo '*' > $D/ignored; " + _set("core.excludesFile", "$D/ignored") + "leave $T-2.txt"
    ),
    "an excludes file of its worktree": (
        "git config extensions.worktreeConfig true; say set $T extensions.worktreeConfig; leave $T.txt; commit\n"
        "echo '*' > $D/ignored; git config --worktree core.excludesFile $D/ignored; leave $T-2.txt"
    ),
    "an included excludes file": (
        "leave $T.txt; commit; echo '*' > $D/ignored; printf '[core]\\n excludesFile = %s\\n' $D/ignored > $D/more\n"
        + _set("include.path", "$D/more")
        + "leave $T-2.txt"
    ),
    "an excludes file on its branch": (
        "leave $T.txt; commit; echo '*' > $D/ignored; printf '[core]\\n excludesFile = %s\\n' $D/ignored > $D/more\n"
        + _set("includeIf.onbranch:forkjoin/**.path", "$D/more")
        + "leave $T-2.txt"
    ),
    "an excludes file that hides some": (
        "leave $T.txt; commit; echo '*-2.txt' > $D/ignored\n"
        + _set("core.excludesFile", "$D/ignored")
        + "leave $T-2.txt; leave out/$T-2.txt"
    ),
    "encodings": (
        _set("i18n.commitEncoding", "UTF-16")
        + _set("i18n.logOutputEncoding", "ISO-8859-1")
        + "leave $T.txt; git add -A; printf 'caf\\351 \\377' | git commit -qF -; leave $T-2.txt; commit"
    ),
    "case twins that are one": _set("core.ignoreCase", "true")
    + "leave Twin-$T; commit; leave twin-$T; leave TWIN-$T/x",
    "line ends": (
        "leave $T.txt; printf 'a\\r\\nb\\n' > mixed-$T.txt; commit; "
        + _set("core.autocrlf", "true")
        + _set("core.safecrlf", "true")
        + "echo x >> mixed-$T.txt"
    ),
    "no modes": (
        "leave $T.txt; commit; "
        + _set("core.fileMode", "false")
        + _set("core.symlinks", "false")
        + _set("core.ignoreCase", "true")
        + "ln -s shared.txt link-$T; chmod +x $T.txt"
    ),
    "sparse": "leave $T.txt; commit; git sparse-checkout set --cone nothing-$T\nleave $T-2.txt",
    "a syntax error": "leave $T.txt; commit; echo '[broken' >> $C/config; say set $T config; say blocks $T",
    "a version of tomorrow": ("leave $T.txt; commit; " + _set("core.repositoryFormatVersion", "99") + "say blocks $T"),
    "an unknown extension": (
        "leave $T.txt; commit; "
        + _set("core.repositoryFormatVersion", "1")
        + _set("extensions.tomorrow", "true")
        + "say blocks $T"
    ),
    "a large configuration": (
        "leave $T.txt; commit; head -c 2000000 /dev/zero | tr '\\0' '#' >> $C/config; say set $T config; say blocks $T"
    ),
    "a configuration of its worktree": (
        "git config extensions.worktreeConfig true; say set $T extensions.worktreeConfig\n"
        "git config --worktree core.fsmonitor $CANARY; git config --worktree core.worktree $OUTSIDE\n"
        "leave $T.txt"
    ),
    "bad numbers": (
        "leave $T.txt; commit; " + _set("core.bigFileThreshold", "x") + _set("pack.threads", "-7") + "say blocks $T"
    ),
    "odd output": (
        "leave $T.txt; commit; "
        + _set("color.ui", "always")
        + _set("core.quotePath", "true")
        + _set("core.abbrev", "4")
        + _set("diff.noprefix", "true")
        + _set("diff.renames", "copies")
        + _set("log.decorate", "full")
        + _set("status.branch", "true")
        + _set("status.short", "true")
        + _set("i18n.logOutputEncoding", "UTF-16")
        + _set("diff.ignoreSubmodules", "all")
        + _set("core.logAllRefUpdates", "false")
    ),
    "forkjoin.toml": ('printf \'verify = "true"\\nsetup = "%s"\\n\' $CANARY > forkjoin.toml; leave $T.txt; commit'),
    "a comment in forkjoin.toml": "echo '# by an agent' >> forkjoin.toml; leave $T.txt; commit",
}
