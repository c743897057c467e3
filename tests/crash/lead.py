"""A lead that sends JSON-RPC lines to a real relay and can have many calls in progress at once."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.harness import INITIALIZE, INITIALIZED, RELAY, tool_call


@dataclass(slots=True)
class Call:
    """A tool call and its answers, one for each time that the call was sent."""

    number: int
    tool: str
    arguments: dict[str, Any]
    tokens: tuple[str, ...] = ()  #: the tokens of the agents that the call spawns
    expected: int = 1  #: the number of answers to expect
    answers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def __str__(self) -> str:
        return f"{self.tool} #{self.number}"

    @property
    def is_answered(self) -> bool:
        return len(self.answers) >= self.expected

    @property
    def content(self) -> Any:
        """The structured content of the first answer, or `None` if it is an error."""
        return None if self._result.get("isError") else self._result.get("structuredContent")

    @property
    def refusal(self) -> str:
        """The text of the tool's error, or '' if there is none."""
        content: list[dict[str, str]] = self._result["content"] if self._result.get("isError") else []
        return "".join(part["text"] for part in content)

    @property
    def _result(self) -> dict[str, Any]:
        result: dict[str, Any] = self.answers[0].get("result", {}) if self.answers else {}
        return result


class Lead:
    """A relay in a folder, with the lead's name as session id. `errors` is the file for the relay's stderr."""

    def __init__(self, name: str, where: Path, environment: Mapping[str, str], errors: Path) -> None:
        self.name = name
        self.where = where
        self.calls: dict[int, Call] = {}
        self.killed = False
        self.strange: list[str] = []  #: lines that answer no call
        variables = {**environment, "CLAUDE_PROJECT_DIR": str(where), "CLAUDE_CODE_SESSION_ID": name}
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                RELAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=where, env=variables, bufsize=0
            )
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._write(INITIALIZE, INITIALIZED)

    @property
    def is_running(self) -> bool:
        return not self._ended

    @property
    def unanswered(self) -> list[Call]:
        return [call for call in self.calls.values() if not call.is_answered]

    def send(self, tool: str, arguments: dict[str, Any], tokens: tuple[str, ...] = ()) -> Call:
        call = Call(len(self.calls) + 1, tool, arguments, tokens)
        self.calls[call.number] = call
        self._write(tool_call(call.number, tool, **arguments))
        return call

    def send_again(self, call: Call) -> None:
        """Send an identical request again. The call then expects one more answer."""
        call.expected += 1
        self._write(tool_call(call.number, call.tool, **call.arguments))

    def wait(self, call: Call, give_up_s: float) -> None:
        """Wait until the call is answered, the relay has ended, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: call.is_answered or not self.is_running, give_up_s)

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self._end()

    def _end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.wait()
        self._reader.join()
        self.process.stdin.close()
        self.process.stdout.close()

    def _write(self, *messages: dict[str, Any]) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # the relay has ended, which missing answers show
            self.process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def _read(self) -> None:
        assert self.process.stdout
        while line := self.process.stdout.readline():
            with self._changed:
                self._take(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        call = self.calls.get(message.get("id", -1))
        if call and len(call.answers) < call.expected:
            call.answers.append(message)
        elif message.get("id") != INITIALIZE["id"] or "error" in message:
            self.strange.append(line.decode(errors="replace")[:300])
