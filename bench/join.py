"""The time and the runs of verify for merging a hundred branches, by forkjoin and by git alone.

Run it with `python -m bench.join [WORD…]`. Words select the cases whose names contain them, e.g. `apart`. The same
branches are merged in three ways, in a repository of 500 files of 300 lines each:

- forkjoin: one merge job, from its record to its answer. The checkout is updated, too.
- one by one: `git merge` for each branch, in a checkout, then verify. A conflict or a failed verify is reset, as a
  careful script does.
- octopus: one `git merge` of all branches, then verify. Either all branches are merged or none.
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
    """A set of branches to merge."""

    name: str
    branches: int
    change: Callable[[int], tuple[int, int]]  #: returns the file and the line that a branch changes
    verify: bool = True
    bad: frozenset[int] = frozenset()  #: branches that fail verify


def apart(branch: int) -> tuple[int, int]:
    """Change a different file in each branch."""
    return branch, 5


def together(branch: int) -> tuple[int, int]:
    """Change a different line in each branch, in one of five files."""
    return branch % 5, branch // 5 * 3


def ten_conflict(branch: int) -> tuple[int, int]:
    """Change the same lines in the last ten branches as in the first ten."""
    return (branch - 90, 5) if branch >= 90 else (branch, 5)


CASES = (
    Case("100, none bad", 100, apart),
    Case("100, one bad", 100, apart, bad=frozenset({61})),
    Case("100, ten conflicting", 100, ten_conflict),
    Case("500 apart, no verify", 500, apart, verify=False),
    Case("100 in the same five files, no verify", 100, together, verify=False),
)


class MergeSetup:
    """A repository with the branches of a case, and a forkjoin home."""

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

    def passes_verify(self) -> bool:
        return self.verify is None or not subprocess.run(["sh", "-c", self.verify], cwd=self.repository).returncode

    def verify_runs(self) -> int:
        return len(self.runs.read_text().split()) if self.runs.exists() else 0


def _history(case: Case) -> Sequence[bytes]:
    committer = b"committer bench <bench@localhost> 1000000000 +0000\n"
    texts = [[f"file {number}, line {line}\n" for line in range(LINES)] for number in range(FILES)]
    parts = [b"commit refs/heads/main\nmark :1\n", committer, _data("base")]
    parts += [_file(f"d{number % 20}/f{number}", "".join(text)) for number, text in enumerate(texts)]
    for branch in range(case.branches):
        number, line = case.change(branch)
        text = [*texts[number][:line], f"changed by {branch}\n", *texts[number][line + 1 :]]
        parts += [b"commit refs/heads/b%d\n" % branch, committer, _data(f"work {branch}"), b"from :1\n"]
        parts += [_file(f"d{number % 20}/f{number}", "".join(text)), _file(f"new/n{branch}", "x\n")]
        parts += [_file("bad", "x\n")] if branch in case.bad else []
    return parts


def _data(text: str) -> bytes:
    return b"data %d\n%s\n" % (len(text.encode()), text.encode())


def _file(name: str, text: str) -> bytes:
    return b"M 100644 inline %s\n%s" % (name.encode(), _data(text))


# -- the three ways


def merge_with_forkjoin(setup: MergeSetup) -> tuple[float, int]:
    """Return the seconds, and the number of merged branches."""
    return anyio.run(_merge, setup)


async def _merge(setup: MergeSetup) -> tuple[float, int]:
    async with open_daemon(setup.home) as reconciler:
        base = setup.git("rev-parse", "main")
        agents = await record_branches(reconciler.store, setup.repository, setup.names(), base)
        began = time.perf_counter()
        new = NewMergeJob(1, "lead", tuple(agents), "refs/heads/main", setup.verify, False, "")
        job = await reconciler.store.merges.add(new, Call("", ""))
        ended = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, job.number)
        return time.perf_counter() - began, len(ended.merged)


def merge_one_by_one(setup: MergeSetup) -> tuple[float, int]:
    began, merged = time.perf_counter(), 0
    for name in setup.names():
        before = setup.git("rev-parse", "HEAD")
        setup.git("merge", "-q", "--no-ff", "--no-edit", name, check=False)
        if setup.git("ls-files", "--unmerged") or not setup.passes_verify():
            setup.git("reset", "-q", "--hard", before)
        else:
            merged += 1
    return time.perf_counter() - began, merged


def merge_as_octopus(setup: MergeSetup) -> tuple[float, int]:
    before, began = setup.git("rev-parse", "HEAD"), time.perf_counter()
    setup.git("merge", "-q", "--no-edit", *setup.names(), check=False)
    if setup.git("rev-parse", "HEAD") == before or not setup.passes_verify():
        setup.git("reset", "-q", "--hard", before)
        return time.perf_counter() - began, 0
    return time.perf_counter() - began, setup.case.branches


WAYS = {"forkjoin": merge_with_forkjoin, "one by one": merge_one_by_one, "octopus": merge_as_octopus}


def main() -> None:
    for case in (case for case in CASES if all(word in case.name for word in sys.argv[1:])):
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        summaries: dict[str, str] = {}
        for _ in range(ROUNDS):
            for way, merge in WAYS.items():
                with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder:
                    setup = MergeSetup(Path(folder) / "setup", case)
                    seconds, merged = merge(setup)
                    took[way].append(seconds)
                    summaries[way] = f"{merged} merged, {setup.verify_runs()} runs of verify"
        base = sorted(took["one by one"])[ROUNDS // 2]
        for way in WAYS:
            median = sorted(took[way])[ROUNDS // 2]
            print(f"{case.name:40}{way:12}{median:8.2f} s  {median / base:6.3f}  {summaries[way]}", flush=True)


if __name__ == "__main__":
    main()
