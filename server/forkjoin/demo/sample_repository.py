"""The sample repository of `forkjoin demo`, and the tasks of its agents."""

from dataclasses import dataclass
from pathlib import Path

FILES = {
    "README.md": "# calc\n\nA tiny calculator.\n",
    "calc/__init__.py": "",
    "calc/add.py": "def add(a: float, b: float) -> float:\n    return a + b\n",
    "tests/__init__.py": "",
    "tests/test_add.py": (
        "import unittest\n\nfrom calc.add import add\n\n\n"
        "class AddTest(unittest.TestCase):\n"
        "    def test_add(self) -> None:\n        self.assertEqual(add(2, 3), 5)\n"
    ),
    ".gitignore": "__pycache__/\n",
}

#: The tests that each agent's work and each merged state must pass.
VERIFY = "python3 -m unittest -q"


@dataclass(frozen=True, slots=True)
class DemoTask:
    """A task of the demo."""

    name: str
    text: str


def _function_task(name: str, does: str) -> str:
    return (
        f"Add calc/{name}.py with a function {name}(a, b) that {does}, in the style of calc/add.py, and a test of it "
        f"in tests/test_{name}.py. Run `{VERIFY}`, then commit."
    )


#: Two tasks that succeed, two that change the same line of the README, and one whose test the scripted agent fails.
TASKS = (
    DemoTask("multiply", _function_task("multiply", "returns a * b")),
    DemoTask("divide", _function_task("divide", "returns a / b, and raises ValueError if b is 0")),
    DemoTask("tagline", "In README.md, replace 'A tiny calculator.' by a line that says it is well tested. Commit."),
    DemoTask("slogan", "In README.md, replace 'A tiny calculator.' by a line that says it is fast. Commit."),
    DemoTask("power", _function_task("power", "returns a to the power of b")),
)


def make_repository(folder: Path) -> None:
    """Make the sample repository in an empty folder, with one commit on main."""
    from git import Actor, Repo  # importing it takes 0.1 s, which other commands need not pay

    for name, content in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    author = Actor("forkjoin demo", "demo@localhost")
    own_git_folder = {"GIT_DIR": str(folder / ".git")}  # `git init` would use a GIT_DIR from the environment
    with Repo.init(folder, initial_branch="main", env=own_git_folder) as repository:
        repository.index.add(list(FILES))  # pyright: ignore[reportUnknownMemberType]  # a callback of its signature
        repository.index.commit("A tiny calculator", author=author, committer=author, skip_hooks=True)
