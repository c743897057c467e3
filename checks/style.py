"""The rules of language and structure that a program can check.

`python -m checks.style` prints each finding, and exits with 1 if there are any. `make check` runs it.
"""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

CODE = ("server", "tools", "tests", "bench", "checks")
#: The folders whose modules are compared with each other.
PRODUCT = ("server", "tools")

#: Characters of the first line of a function's docstring.
SUMMARY_LENGTH = 80
#: A module of fewer lines belongs into the single module of its package that imports it.
SHORT_MODULE = 40

#: A module of more lines is split.
LONG_MODULE = 400

UNCLEAR_WORDS = re.compile(
    r"\b(?:(?<!--)anew|beside|midst|whoever|whatever|heed(?:s|ed)?|obey(?:s|ed)?|lest|so\s+many"
    r"|(?:is|are|was|were)\s+to\s+[a-z]+|of\s+(?:which|whom|these|those|each|them)\s+the"
    r"|what\s+(?:is|are|was|were)\b(?![^.]*\?))\b",
    re.IGNORECASE,
)
#: Files that hold unclear words because they are about them.
ABOUT_WORDS = ("checks/style.py", "tests/test_style.py")

#: Top-level names that several modules may define, by the reason.
SHARED_NAMES = {
    "entry points of programs": ("main", "run"),
    "the contract that each adapter implements": (
        "account",
        "conclude",
        "read",
        "read_beginning",
        "converse",
        "encode_turn",
        "resume",
        "start",
    ),
    "a command or a tool, and the operation that it calls": (
        *("attach", "budget", "merge_all", "read_diff", "read_log", "spawn", "stop", "undo", "wait"),
    ),
    "a command, and the same command of `forkjoin daemon`": ("logs", "status"),
}
#: Short modules that stay apart from their single importer, by the reason.
SHORT_MODULES_KEPT: dict[str, tuple[str, ...]] = {
    "one module for each family of tools": ("tools/forkjoin_tools/messages.py",),
    "a search of its own, which is tested without merges": ("server/forkjoin/merge_queue/bisect.py",),
}


class Finding(NamedTuple):
    """A place in the code that breaks a rule."""

    path: str
    line: int
    rule: str


def main() -> int:
    """Print the findings. Return the exit code."""
    paths = [path for folder in CODE for path in sorted(Path(folder).rglob("*.py"))]
    findings = sorted([*find_all({str(path): path.read_text("utf-8") for path in paths}), *ruff_findings()])
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.rule}")
    return int(bool(findings))


def find_all(sources: dict[str, str]) -> Iterator[Finding]:
    """Find what breaks a rule, in files given as path and text."""
    trees = {path: ast.parse(text) for path, text in sources.items()}
    for path, tree in trees.items():
        yield from _summaries_out_of_form(path, tree)
        if path not in ABOUT_WORDS:
            yield from _unclear_words(path, tree, sources[path])
    product = {path: tree for path, tree in trees.items() if path.startswith(PRODUCT)}
    for path, text in sources.items():
        if (length := len(text.splitlines())) > LONG_MODULE:
            yield Finding(path, 1, f"has {length} lines, more than {LONG_MODULE}")
    yield from _repeated_names(product)
    yield from _short_modules(product, sources)


def ruff_findings() -> Iterator[Finding]:
    """Find what ruff's rules about docstrings report, except for missing docstrings."""
    options = ["--select", "D", "--ignore", "D1", "--output-format", "json", "--exit-zero"]
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run([ruff, "check", *options, *CODE], capture_output=True, check=True)
    for found in json.loads(done.stdout):
        path = str(Path(found["filename"]).relative_to(Path.cwd()))
        yield Finding(path, found["location"]["row"], f"{found['code']} {found['message']}")


def _summaries_out_of_form(path: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        summary = (ast.get_docstring(node) or "").partition("\n")[0]
        if len(summary) > SUMMARY_LENGTH:
            yield Finding(path, node.body[0].lineno, f"the first line has {len(summary)} characters")
        if ";" in summary:
            yield Finding(path, node.body[0].lineno, "the first line has a semicolon")


def _unclear_words(path: str, tree: ast.Module, source: str) -> Iterator[Finding]:
    texts = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts += [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    for line, text in texts:
        for found in UNCLEAR_WORDS.finditer(text):
            words = " ".join(found[0].split())
            yield Finding(path, line + text.count("\n", 0, found.start()), f"unclear wording: {words}")


def _repeated_names(trees: dict[str, ast.Module]) -> Iterator[Finding]:
    places: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                places[node.name].append((path, node.lineno))
    allowed = set(chain(*SHARED_NAMES.values()))
    for name, found in places.items():
        paths = sorted({path for path, _ in found})
        if len(paths) > 1 and name not in allowed:
            for path, line in found:
                others = ", ".join(other for other in paths if other != path)
                yield Finding(path, line, f"{name} is also defined in {others}")


def _short_modules(trees: dict[str, ast.Module], sources: dict[str, str]) -> Iterator[Finding]:
    modules = {".".join(Path(path).with_suffix("").parts[1:]): path for path in trees}
    importers: defaultdict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for name in _imported_names(tree):
            if name in modules:
                importers[modules[name]].add(path)
    kept = set(chain(*SHORT_MODULES_KEPT.values()))
    for path in trees.keys() - kept:
        length, importing = len(sources[path].splitlines()), importers[path]
        if length < SHORT_MODULE and len(importing) == 1 and Path(path).parent == Path(*importing).parent:
            yield Finding(path, 1, f"has {length} lines and a single importer, {importing.pop()}")


def _imported_names(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    sys.exit(main())
