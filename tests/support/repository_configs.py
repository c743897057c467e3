"""Helpers that write a repository's forkjoin.toml and shared folders."""

from pathlib import Path

from forkjoin.core.paths import Home
from forkjoin.core.trust_records import Trust, Trusted, digest
from support.harness import git


def want(repository: Path, home: Home, text: str, *, trusted: bool = True) -> None:
    """Write the repository's forkjoin.toml.

    Unless `trusted` is false, record that a person trusts it.
    """
    (repository / "forkjoin.toml").write_text(text)
    if trusted:
        common_dir = git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir")
        Trust(home.trust).write(common_dir, Trusted(files=frozenset({digest(text.encode())}), last=text))


def put_dependencies(repository: Path, ignored: str = "node_modules/") -> Path:
    """Create `node_modules` in a checkout, and commit a .gitignore with this pattern.

    Return the folder.
    """
    folder = repository / "node_modules"
    (folder / "left-pad").mkdir(parents=True)
    (folder / "left-pad" / "index.js").write_text("pad\n")
    (repository / ".gitignore").write_text(f"{ignored}\n")
    git(repository, "add", ".gitignore")
    git(repository, "commit", "-q", "-m", "ignore")
    return folder
