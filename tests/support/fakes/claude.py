"""A program that prints the same JSON lines as claude. Its task is Python code, which it runs in each attempt.

The code can use the functions below and three variables: `run`, the attempt's number from 1, `resumed`, and `told`, the
first message of this attempt. A file in the user's home folder holds the conversation's task and number of runs. At a
terminal, the program runs the Python code that a person types.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import NoReturn

#: The price of an output token of claude-opus-4-8.
USD_PER_TOKEN = 25e-6


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def answer(text: str) -> None:
    """Report an answer of the model."""
    say(type="assistant", message={"content": [{"type": "text", "text": text}]})


def spend(usd: float, model: str = "claude-opus-4-8") -> None:
    """Report a call of the model with as many output tokens as cost this amount."""
    call = str(uuid.uuid4())
    message: dict[str, object] = {"id": call, "model": model, "content": [], "usage": {"input_tokens": 0}}
    say(type="stream_event", event={"type": "message_start", "message": message})
    delta = {"type": "message_delta", "usage": {"output_tokens": round(usd / USD_PER_TOKEN)}}
    say(type="stream_event", uuid=f"{call} end", event=delta)


def hear() -> str:
    """Wait for the next message to this program, and return its text."""
    text: str = json.loads(sys.stdin.readline())["message"]["content"][0]["text"]
    return text


def refused(wait_s: float, status: int = 429) -> None:
    """Report that the API refused a call and a retry follows in `wait_s` seconds."""
    retry = {"attempt": 1, "max_retries": 10, "retry_delay_ms": wait_s * 1000, "error_status": status, "error": "limit"}
    say(type="system", subtype="api_retry", **retry)


def reach_limit(resets_at: float) -> None:
    """Report that the subscription's usage limit is reached until this time."""
    info = {"status": "rejected", "resetsAt": resets_at, "rateLimitType": "five_hour"}
    say(type="rate_limit_event", rate_limit_info=info)


def succeed(text: str, cost_usd: float = 0.25) -> None:
    say(type="result", subtype="success", is_error=False, result=text, total_cost_usd=cost_usd)


def end_spent() -> NoReturn:
    """Exit as claude does when its own budget is used up."""
    why = ["Reached maximum budget ($0.25)"]
    say(type="result", subtype="error_max_budget_usd", is_error=True, errors=why, total_cost_usd=0.25)
    sys.exit(1)


def fail(text: str, status: int | None = None) -> NoReturn:
    say(type="result", subtype="success", is_error=True, result=text, api_error_status=status, total_cost_usd=0.25)
    sys.exit(1)


def converse(conversation: str) -> None:
    """Print a prompt, and run each line of Python that a person types."""
    print(f"{conversation} person>", flush=True)
    for line in iter(sys.stdin.readline, ""):
        exec(line)


def main() -> None:
    option, conversation = sys.argv[-2:]
    if "-p" not in sys.argv:
        return converse(conversation)
    told = hear()
    memory = Path.home() / conversation
    task, run = json.loads(memory.read_text()) if memory.exists() else (told, 0)
    memory.write_text(json.dumps([task, run + 1]))
    say(type="system", subtype="init", session_id=conversation, model="scripted")
    exec(task, {**globals(), "run": run + 1, "resumed": option == "--resume", "told": told})
    sys.stdin.read()
    return None


if __name__ == "__main__":
    main()
