"""The JSON schemas of the two spawning tools, and the descriptions of a spec's fields.

A model always has the schema of spawn_agents, which therefore lists only the common fields. The schema of spawn_agent,
which a model loads when it needs it, lists all fields. Both tools accept all fields and refuse unknown ones.
"""

from typing import Any

#: Descriptions of the fields that both schemas list. They stand in spawn_agents alone.
_COMMON = {
    "task": "All the agent will know: goal, files, limits, acceptance. It doesn't see this conversation.",
    "name": "Unique, short; usable as id.",
    "base": "Commit, branch or agent to start from. Default: your last commit. Uncommitted files are never there, "
    "ignored ones only if .worktreeinclude or forkjoin.toml names them.",
    "after": "Agents (id or name) that must succeed first; their work is included. If one doesn't, this agent fails "
    "without starting.",
    "verify": "Shell command run in the worktree at the end. The agent succeeds only if it exits 0.",
}
#: Descriptions of the fields that only the schema of spawn_agent lists.
_RARE = {
    "agent": "Agent program: claude, or one from config.toml.",
    "model": "Model, as that program names it.",
    "on_failed_dependency": "run: start even if an agent in `after` failed. Default: skip.",
    "exclusive": "Agents with the same key never run at the same time, e.g. a port or a database.",
    "paths": "Files it will change. spawn_agents reports overlaps.",
    "priority": "Higher starts first. Default: 0.",
    "candidates": "Run several agents on this task: a number, or a list of {agent, model}. They are called name-1, "
    "name-2, …; name means the best.",
    "judge": "Shell command run in each candidate's worktree. The highest number it prints wins.",
    "timeout_minutes": "Ends the agent after this time.",
    "silence_minutes": "Ends the agent after this time without output.",
    "budget_usd": "Most it may spend; then it pauses, its work kept.",
    "nesting": "{agents, depth, budget_usd}: how many agents it may spawn, how many levels deep, and what they may "
    "spend of its money.",
    "retries": "Retries after an API error, a killed claude, or a command's exit code 75.",
    "permissions": "{allow, deny}: lists of Claude Code rules, e.g. Bash(npm test:*). With allow, it asks before "
    "anything else except edits.",
}


def list_all_fields(schema: dict[str, Any]) -> None:
    """Reduce the schema of spawn_agent to types and descriptions.

    Fields that spawn_agents describes have only a type.
    """
    fields = schema["properties"]
    for name, field in fields.items():
        types = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
        kept = {key: types[0][key] for key in ("type", "items") if len(types) == 1 and key in types[0]}
        fields[name] = kept | ({"description": _RARE[name]} if name in _RARE else {})
    fields["candidates"]["items"] = {"type": "object"}


def list_common_fields(schema: dict[str, Any]) -> None:
    """Leave only the common fields in an entry of spawn_agents.

    The schema allows fields that it doesn't list.
    """
    del schema["additionalProperties"]
    fields = schema["properties"]
    schema["properties"] = {name: fields[name] | {"description": text} for name, text in _COMMON.items()}


def list_agents_alone(schema: dict[str, Any]) -> None:
    """Remove the default fields from the schema of spawn_agents.

    The schema still allows them.
    """
    del schema["additionalProperties"]
    fields = schema["properties"]
    schema["properties"] = {name: fields[name] for name in ("agents", "dry_run")}
