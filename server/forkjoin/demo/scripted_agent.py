"""The scripted agent of `forkjoin demo`: `python -m forkjoin.demo.scripted_agent`, an agent program without a model.

It knows the demo's five tasks by the name that forkjoin gives it, edits files, runs the tests and commits: for real,
and in one of them badly, so that a verify which fails can be seen. Standard library only.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

#: Long enough to be watched.
_THINKING_S = 0.4


def _function(name: str, body: str, check: str) -> dict[str, str]:
    code = f"def {name}(a: float, b: float) -> float:\n{body}"
    test = (
        f"import unittest\n\nfrom calc.{name} import {name}\n\n\n"
        f"class {name.title()}Test(unittest.TestCase):\n    def test_{name}(self) -> None:\n        {check}\n"
    )
    return {f"calc/{name}.py": code, f"tests/test_{name}.py": test}


def _readme(line: str) -> dict[str, str]:
    return {"README.md": f"# calc\n\n{line}\n"}


#: What it writes for each task.
WORK = {
    "multiply": _function("multiply", "    return a * b\n", "self.assertEqual(multiply(2, 3), 6)"),
    "divide": _function(
        "divide",
        '    if b == 0:\n        raise ValueError("division by zero")\n    return a / b\n',
        "self.assertEqual(divide(6, 3), 2)",
    ),
    "tagline": _readme("A tiny, well tested calculator."),
    "slogan": _readme("A tiny calculator, and a fast one."),
    "power": _function("power", "    return a * b\n", "self.assertEqual(power(2, 3), 8)"),
}


def main() -> int:
    task = sys.stdin.read()
    name = os.environ.get("FORKJOIN_NAME", "")
    if name not in WORK:
        print(f"I only know the demo's tasks, not {name!r}")
        return 1
    print(f"my task: {task[:70]}…", flush=True)
    for file, content in WORK[name].items():
        time.sleep(_THINKING_S)
        print(f"writing {file}", flush=True)
        Path(file).write_text(content)
    time.sleep(_THINKING_S)
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", f"{name}: {', '.join(WORK[name])}"], check=True)
    print(f"committed {', '.join(WORK[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
