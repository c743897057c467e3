"""How long it takes to join a hundred branches, and in how many runs of verify, beside git's own ways.

`python -m bench.join`; a word after it chooses the cases with that in their names (`apart`). The same branches are
joined three ways, in a repository of 500 files of 300 lines each:

- forkjoin: one landing, from the moment it is recorded until it is answered, its checkout moved.
- one by one: `git merge` for each branch, in a checkout; after each, verify where there is one, and a reset where it
  fails or conflicts, as a careful script does.
- octopus: one `git merge` of all, then verify. It is all or nothing.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.store.rows import NewMergeJob
from support.merges import carry_to_its_end, open_daemon, record_branches

FILES, LINES = 500, 300
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    name: str
    branches: int
    change: Callable[[int], tuple[int, int]]  #: the file and the line that a branch changes
    verify: bool = True
    bad: frozenset[int] = frozenset()  #: those that break verify


def apart(branch: int) -> tuple[int, int]:
    """A file of its own."""
    return branch, 5


def together(branch: int) -> tuple[int, int]:
    """A line of its own, in one of five files."""
    return branch % 5, branch // 5 * 3


def ten_conflict(branch: int) -> tuple[int, int]:
    """As `apart`, but the last ten change what the first ten have changed."""
    return (branch - 90, 5) if branch >= 90 else (branch, 5)


CASES = (
    Case("100, none bad", 100, apart),
    Case("100, one bad", 100, apart, bad=frozenset({61})),
    Case("100, ten conflicting", 100, ten_conflict),
    Case("500 apart, no verify", 500, apart, verify=False),
    Case("100 in the same five files, no verify", 100, together, verify=False),
)


class Place:
    """A repository with these branches, and a home."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder, self.case = folder, case
        self.repository = folder / "repository"
        self.repository.mkdir(parents=True)
        self.runs = folder / "runs"
        self.verify = f"echo run >> {self.runs}; test ! -e bad" if case.verify else None
        self.home = Home(folder / "home", folder / "home")
        self.home.state.mkdir(mode=0o700)
        self.home.make()
        self.home.config_file.write_text('default_agent = "sh"\n[agents.sh]\nkind = "command"\ncommand = ["sh"]\n')
        self.git("init", "-q", "-b", "main")
        for name, value in (("user.name", "bench"), ("user.email", "bench@localhost"), ("gc.auto", "0")):
            self.git("config", name, value)
        self.git("fast-import", "--quiet", stdin=b"".join(_history(case)))
        self.git("reset", "-q", "--hard")

    def git(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
        argv = ["git", "-C", str(self.repository), *arguments]
        return subprocess.run(argv, input=stdin, check=check, capture_output=True).stdout.decode().strip()

    def names(self) -> list[str]:
        return [f"b{branch}" for branch in range(self.case.branches)]

    def verifies(self) -> bool:
        return self.verify is None or not subprocess.run(["sh", "-c", self.verify], cwd=self.repository).returncode

    def verified(self) -> int:
        return len(self.runs.read_text().split()) if self.runs.exists() else 0


def _history(case: Case) -> Sequence[bytes]:
    who = b"committer bench <bench@localhost> 1000000000 +0000\n"
    texts = [[f"file {number}, line {line}\n" for line in range(LINES)] for number in range(FILES)]
    parts = [b"commit refs/heads/main\nmark :1\n", who, _data("base")]
    parts += [_file(f"d{number % 20}/f{number}", "".join(text)) for number, text in enumerate(texts)]
    for branch in range(case.branches):
        number, line = case.change(branch)
        text = [*texts[number][:line], f"changed by {branch}\n", *texts[number][line + 1 :]]
        parts += [b"commit refs/heads/b%d\n" % branch, who, _data(f"work {branch}"), b"from :1\n"]
        parts += [_file(f"d{number % 20}/f{number}", "".join(text)), _file(f"new/n{branch}", "x\n")]
        parts += [_file("bad", "x\n")] if branch in case.bad else []
    return parts


def _data(text: str) -> bytes:
    return b"data %d\n%s\n" % (len(text.encode()), text.encode())


def _file(name: str, text: str) -> bytes:
    return b"M 100644 inline %s\n%s" % (name.encode(), _data(text))


# -- three ways


def join_with_forkjoin(place: Place) -> tuple[float, int]:
    """Seconds, and how many landed."""
    return anyio.run(_join, place)


async def _join(place: Place) -> tuple[float, int]:
    async with open_daemon(place.home) as reconciler:
        base = place.git("rev-parse", "main")
        agents = await record_branches(reconciler.store, place.repository, place.names(), base)
        began = time.perf_counter()
        new = NewMergeJob(1, "lead", tuple(agents), "refs/heads/main", place.verify, False, "")
        landing = await reconciler.store.merges.add(new, Call("", ""))
        landed = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, landing.number)
        return time.perf_counter() - began, len(landed.merged)


def join_one_by_one(place: Place) -> tuple[float, int]:
    began, landed = time.perf_counter(), 0
    for name in place.names():
        before = place.git("rev-parse", "HEAD")
        place.git("merge", "-q", "--no-ff", "--no-edit", name, check=False)
        if place.git("ls-files", "--unmerged") or not place.verifies():
            place.git("reset", "-q", "--hard", before)
        else:
            landed += 1
    return time.perf_counter() - began, landed


def join_as_octopus(place: Place) -> tuple[float, int]:
    before, began = place.git("rev-parse", "HEAD"), time.perf_counter()
    place.git("merge", "-q", "--no-edit", *place.names(), check=False)
    if place.git("rev-parse", "HEAD") == before or not place.verifies():
        place.git("reset", "-q", "--hard", before)
        return time.perf_counter() - began, 0
    return time.perf_counter() - began, place.case.branches


WAYS = {"forkjoin": join_with_forkjoin, "one by one": join_one_by_one, "octopus": join_as_octopus}


def main() -> None:
    for case in (case for case in CASES if all(word in case.name for word in sys.argv[1:])):
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        told: dict[str, str] = {}
        for _ in range(ROUNDS):
            for way, join in WAYS.items():
                with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder:
                    place = Place(Path(folder) / "place", case)
                    seconds, landed = join(place)
                    took[way].append(seconds)
                    told[way] = f"{landed} landed, {place.verified()} runs of verify"
        base = sorted(took["one by one"])[ROUNDS // 2]
        for way in WAYS:
            median = sorted(took[way])[ROUNDS // 2]
            print(f"{case.name:40}{way:12}{median:8.2f} s  {median / base:6.3f}  {told[way]}", flush=True)


if __name__ == "__main__":
    main()
