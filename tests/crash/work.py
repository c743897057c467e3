"""What scripted agents do, and what must come of it: each kind of work is a shell script, and says how it ends.

A script writes to a log outside its worktree when it starts, once a file of its is on disk (`left`), and at its end; so
whatever happens to it, the log tells what must be found again.
"""

import hashlib
from dataclasses import dataclass

#: A file that several agents change: their branches conflict.
SHARED = "shared.txt"
#: A file that agents add where the person has an untracked one: merging it must be refused.
IN_THE_WAY = "notes/untracked.txt"

_BEGIN = "say() { echo \"$1 @TOKEN@ $$\" >> '@LOG@'; }\nsay start\n"
_LEAVE = "printf 'the work of @TOKEN@\\n' > @TOKEN@.txt\nsay left\n"
_MORE = "mkdir -p @TOKEN@.d; printf 'more of @TOKEN@\\n' > @TOKEN@.d/more; chmod +x @TOKEN@.d/more; say more\n"
#: Both commands are repeated: a person's gc may hold a ref's lock for a moment, and any git process may be killed.
_COMMIT = 'until git add -A && git commit -qm @TOKEN@ || test -z "$(git status --porcelain)"; do sleep 0.05; done\n'
#: A repository of its own within the worktree; where it is committed in, it is a submodule.
_NEST = (
    "git init -q @TOKEN@.in; printf 'nested in @TOKEN@\\n' > @TOKEN@.in/file; git -C @TOKEN@.in add file\n"
    "until git -C @TOKEN@.in commit -qm nested || git -C @TOKEN@.in rev-parse -q --verify HEAD; do\n"
    "    sleep 0.05; git -C @TOKEN@.in add file; done\nsay nested\n"
)
_END = "say end\necho did @TOKEN@\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work: the middle of its script, the state it ends in if nobody hurts it, and what its spec says."""

    script: str
    ends: str = "succeeded"
    verify: str | None = None
    timeout_minutes: float | None = None
    endless: bool = False  #: somebody has to stop it
    runs: int = 1  #: how often its script is started at most
    listens: bool = (
        False  #: it is told more: each message is a line of script, and it is started again with all of them
    )


KINDS = {
    "commits": Kind(_LEAVE + _COMMIT),
    "leaves": Kind(_LEAVE + _MORE),
    "does both": Kind(_LEAVE + _COMMIT + _MORE),
    "nests a repository": Kind(_LEAVE + _COMMIT + _NEST),
    "commits a submodule": Kind(_LEAVE + _NEST + _COMMIT),
    "naps": Kind(_LEAVE + "sleep 0.3\n" + _COMMIT),
    "does nothing": Kind(""),
    "conflicts": Kind(f"printf 'the line of @TOKEN@\\n' > {SHARED}\n{_LEAVE}{_COMMIT}"),
    "gets in the way": Kind(f"mkdir -p notes; printf 'of @TOKEN@\\n' > {IN_THE_WAY}\n{_LEAVE}"),
    "prints much": Kind(_LEAVE + "head -c 300000 /dev/zero | tr '\\0' x; seq 20000\n"),
    "forks away": Kind(_LEAVE + "(setsid sh -c 'trap \"\" HUP; sleep 1000' > /dev/null 2>&1 &)\n"),
    "is verified": Kind(_LEAVE, verify="test -f @TOKEN@.txt"),
    "is refused": Kind(_LEAVE, ends="failed", verify="echo no; false"),
    "tries again": Kind(_LEAVE + "test -f again || { touch again; exit 75; }\n" + _MORE, runs=2),
    "listens": Kind(_LEAVE + _COMMIT, listens=True),
    "naps and listens": Kind(_LEAVE + "sleep 0.3\n" + _MORE, listens=True),
    "fails": Kind(_LEAVE + "exit 3\n", ends="failed"),
    "is late": Kind(_LEAVE + "sleep 1000\n", ends="timed_out", timeout_minutes=0.01),
    "waits": Kind(_LEAVE + "sleep 1000\n", ends="stopped", endless=True),
    "is stubborn": Kind(
        _LEAVE + "trap '' HUP INT TERM\nsetsid sleep 1000 &\nwhile :; do sleep 0.1; done\n",
        ends="stopped",
        endless=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What one agent is asked to do."""

    token: str
    kind: str
    task: str

    @property
    def expected(self) -> Kind:
        return KINDS[self.kind]

    def spec(self, name: str | None) -> dict[str, object]:
        kind = self.expected
        verify = kind.verify and kind.verify.replace("@TOKEN@", self.token)
        said = {"task": self.task, "name": name, "verify": verify, "timeout_minutes": kind.timeout_minutes}
        return {key: value for key, value in said.items() if value is not None}

    def blobs(self, told: set[str]) -> dict[str, str]:
        """Object ids of the files that it has said are there, by what they are."""
        texts = {"left": f"the work of {self.token}\n", "more": f"more of {self.token}\n"}
        return {word: blob_id(text) for word, text in texts.items() if word in told}

    @property
    def nested(self) -> str:
        """The text of the file in its nested repository, once it has said `nested`."""
        return f"nested in {self.token}\n"


def make_work(token: str, kind: str, log: str) -> Work:
    script = _BEGIN + KINDS[kind].script + _END
    return Work(token, kind, script.replace("@TOKEN@", token).replace("@LOG@", log))


def blob_id(text: str) -> str:
    """The id under which git knows a file with this text."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
