"""The work of scripted agents: each kind is a shell script with an expected outcome.

A script appends a word to a log outside its worktree when it starts, when a file of its work is on disk (`left`), and
when it ends. Even if the script is killed, the log shows which files must be found again.
"""

import hashlib
from dataclasses import dataclass

#: A file that several agents change: their branches conflict.
SHARED = "shared.txt"
#: A file that agents add although the person has an untracked one with this path. Merging the file must fail.
IN_THE_WAY = "notes/untracked.txt"

_BEGIN = "say() { echo \"$1 @TOKEN@ $$\" >> '@LOG@'; }\nsay start\n"
_LEAVE = "printf 'the work of @TOKEN@\\n' > @TOKEN@.txt\nsay left\n"
_MORE = "mkdir -p @TOKEN@.d; printf 'more of @TOKEN@\\n' > @TOKEN@.d/more; chmod +x @TOKEN@.d/more; say more\n"
#: The commands are repeated, because a person's gc may lock a ref for a moment and any git process may be killed.
_COMMIT = 'until git add -A && git commit -qm @TOKEN@ || test -z "$(git status --porcelain)"; do sleep 0.05; done\n'
#: Creates a repository inside the worktree. If the worktree commits it, it becomes a submodule.
_NEST = (
    "git init -q @TOKEN@.in; printf 'nested in @TOKEN@\\n' > @TOKEN@.in/file; git -C @TOKEN@.in add file\n"
    "until git -C @TOKEN@.in commit -qm nested || git -C @TOKEN@.in rev-parse -q --verify HEAD; do\n"
    "    sleep 0.05; git -C @TOKEN@.in add file; done\nsay nested\n"
)
_END = "say end\necho did @TOKEN@\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work: the middle part of a script, the state in which it ends if no process is killed, and a spec."""

    script: str
    ends: str = "succeeded"
    verify: str | None = None
    timeout_minutes: float | None = None
    endless: bool = False  #: whether the agent runs until it is stopped
    runs: int = 1  #: the maximum number of times that the script is started
    listens: bool = False  #: whether it is sent messages: lines of script, with which the agent is started again


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
    """One agent's task. The token identifies the agent in the log and in its files."""

    token: str
    kind: str
    task: str

    @property
    def expected(self) -> Kind:
        return KINDS[self.kind]

    def spec(self, name: str | None) -> dict[str, object]:
        kind = self.expected
        verify = kind.verify and kind.verify.replace("@TOKEN@", self.token)
        fields = {"task": self.task, "name": name, "verify": verify, "timeout_minutes": kind.timeout_minutes}
        return {key: value for key, value in fields.items() if value is not None}

    def blobs(self, logged: set[str]) -> dict[str, str]:
        """Return the git object ids of the script's files, by the words logged for them."""
        texts = {"left": f"the work of {self.token}\n", "more": f"more of {self.token}\n"}
        return {word: blob_id(text) for word, text in texts.items() if word in logged}

    @property
    def nested(self) -> str:
        """The content of the file in the nested repository.

        The file exists once the script has logged `nested`.
        """
        return f"nested in {self.token}\n"


def make_work(token: str, kind: str, log: str) -> Work:
    script = _BEGIN + KINDS[kind].script + _END
    return Work(token, kind, script.replace("@TOKEN@", token).replace("@LOG@", log))


def blob_id(text: str) -> str:
    """Return git's object id (SHA-1) of a file with this text."""
    data = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
