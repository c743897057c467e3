"""The scripted agent of `forkjoin demo`: `python -m forkjoin.demo.scripted_agent`, an agent program without a model.

It recognizes the demo's five tasks by the agent's name, and really edits files and commits. It does one task wrongly,
to show a verify that fails. It imports only the standard library.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

#: Seconds before each step, so that a person can watch.
_PAUSE_S = 0.4


def _add_function(name: str, body: str, check: str) -> dict[str, str]:
    code = f"def {name}(a: float, b: float) -> float:\n{body}"
    test = (
        f"import unittest\n\nfrom calc.{name} import {name}\n\n\n"
        f"class {name.title()}Test(unittest.TestCase):\n    def test_{name}(self) -> None:\n        {check}\n"
    )
    return {f"calc/{name}.py": code, f"tests/test_{name}.py": test}


def _replace_readme(line: str) -> dict[str, str]:
    return {"README.md": f"# calc\n\n{line}\n"}


#: The files that each task writes, by the agent's name.
FILES_BY_NAME = {
    "multiply": _add_function("multiply", "    return a * b\n", "self.assertEqual(multiply(2, 3), 6)"),
    "divide": _add_function(
        "divide",
        '    if b == 0:\n        raise ValueError("division by zero")\n    return a / b\n',
        "self.assertEqual(divide(6, 3), 2)",
    ),
    "tagline": _replace_readme("A tiny, well tested calculator."),
    "slogan": _replace_readme("A tiny calculator, and a fast one."),
    "power": _add_function("power", "    return a * b\n", "self.assertEqual(power(2, 3), 8)"),
}


def main() -> int:
    """Do the task, and return the exit code."""
    task = sys.stdin.read()
    name = os.environ.get("FORKJOIN_NAME", "")
    if name not in FILES_BY_NAME:
        print(f"I know only the demo's tasks, not {name!r}")
        return 1
    print(f"my task: {task[:70]}…", flush=True)
    for file, content in FILES_BY_NAME[name].items():
        time.sleep(_PAUSE_S)
        print(f"writing {file}", flush=True)
        Path(file).write_text(content)
    time.sleep(_PAUSE_S)
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", f"{name}: {', '.join(FILES_BY_NAME[name])}"], check=True)
    print(f"committed {', '.join(FILES_BY_NAME[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
