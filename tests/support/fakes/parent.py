"""An agent's program that calls forkjoin's tools through its relay, as a model does.

The task is a JSON list of steps. For a step [tool, arguments] the program calls the tool and prints the reply, one line
of JSON. For a step ["sh", command] it runs the command in the worktree.
"""

import json
import subprocess
import sys
from typing import Any

from support.harness import INITIALIZE, INITIALIZED, RELAY, tool_call


def main() -> None:
    steps: list[Any] = json.loads(sys.stdin.read())
    with subprocess.Popen(RELAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdin
        assert relay.stdout
        relay.stdin.write(f"{json.dumps(INITIALIZE)}\n{json.dumps(INITIALIZED)}\n")
        relay.stdin.flush()
        relay.stdout.readline()
        for number, (tool, given) in enumerate(steps, 1):
            if tool == "sh":
                subprocess.run(["sh", "-c", given], check=True)
                continue
            relay.stdin.write(json.dumps(tool_call(number, tool, **given)) + "\n")
            relay.stdin.flush()
            sys.stdout.write(relay.stdout.readline())
            sys.stdout.flush()
        relay.stdin.close()


if __name__ == "__main__":
    main()
