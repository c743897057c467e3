"""Requests that are sent to tools to observe the public contract: an agent's requests, and specs with every field."""

from typing import Any

#: Requests that an agent sends to its own relay.
AGENT_REQUESTS: list[dict[str, Any]] = [
    {
        "id": 0,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}},
    },
    {"method": "notifications/initialized"},
    {"id": 1, "method": "tools/list"},
    {"id": 2, "method": "tools/call", "params": {"name": "report_progress", "arguments": {"text": "half"}}},
]

#: Specs that together use every field, including the fields inside `permissions` and others that no schema lists.
SPECS: dict[str, dict[str, Any]] = {
    "all of it": {
        "task": "true",
        "name": "x",
        "agent": "model",
        "model": "opus",
        "base": "main",
        "after": ["first"],
        "on_failed_dependency": "run",
        "exclusive": "port",
        "paths": ["a.py"],
        "priority": 1,
        "verify": "true",
        "timeout_minutes": 1,
        "silence_minutes": 1,
        "budget_usd": 1,
        "retries": 1,
        "permissions": {"allow": ["Bash(ls:*)"], "deny": ["Bash(rm:*)"]},
    },
    "nesting": {
        "task": "true",
        "agent": "model",
        "nesting": {"agents": 1, "depth": 1, "budget_usd": 1},
        "budget_usd": 2,
    },
    "some candidates": {"task": "true", "candidates": 2, "judge": "echo 1"},
    "candidates by program": {"task": "true", "candidates": [{"agent": "model", "model": "opus"}, {"agent": "sh"}]},
}
