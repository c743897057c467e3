"""Prompts: what a person asks for in a word, and Claude Code shows as slash commands.

Claude Code (2.1.197) gives an argument one word of what was typed, and the model the whole of it, in `<command-args>`;
other clients give the whole.
"""

from typing import Annotated

from mcp.server.mcpserver.prompts import Prompt
from pydantic import Field

Goal = Annotated[str, Field(description="What is to be done.")]
Names = Annotated[str, Field(description="Agent ids or names. Default: all that ended and are not merged.")]
Question = Annotated[str, Field(description="What is to be judged: a change, a design, a claim.")]

_WHOLE = "(All of it is in <command-args>, if that is there.)"
_ELSE = "Where none is named: all of list_agents that have ended and are not merged."


def fan_out(goal: Goal) -> str:
    """Break a goal into tasks that do not overlap, and give each to an agent of its own."""
    return f"""\
Fork this out to agents of forkjoin: {goal}
{_WHOLE}

1. Look at the repository as far as you must to split the work. Each part is one task of its own: no two change the
   same files; what needs another's result comes `after` it. Few larger parts are better than many small ones.
2. Write each task for somebody who sees nothing of this conversation: goal, files, limits, acceptance. Declare
   `paths`, and give each the `verify` command that shows it done.
3. Where parts depend on each other or may overlap, call spawn_agents with dry_run first, and mend what it shows.
4. Tell me the parts in a line each, then spawn them, all in one call, and wait_agents.
5. When they have ended, tell me of each in a line what came of it. Merge nothing before I say so."""


def review_results(agents: Names = "") -> str:
    """Judge what agents did, before it is merged."""
    return f"""\
Review the work of these agents: {agents}
{_WHOLE} {_ELSE}

For each: get_result, then read_diff, whole. Does it do what its task asked, all of it? Is anything in it that was not
asked for? Would its verify have failed without it? Then check_conflicts among them.
Tell me of each in two lines at most: merge it, or what is wrong. What can be mended, tell its agent by message_agent
once I agree."""


def merge_all(agents: Names = "") -> str:
    """Merge what agents did, verified together."""
    return f"""\
Merge the work of these agents: {agents}
{_WHOLE} {_ELSE}

By one merge_worktree, with the command that runs all of this repository's tests as `verify`. Name those that
failed instead of merging them. What conflicts or is rejected, tell me with the reason, and what you would do; then wait
for my word. Where a branch is protected, ask me first. At the end remove_worktrees of those that merged."""


def second_opinion(question: Question) -> str:
    """Have an agent of another model, or vendor, judge something independently."""
    return f"""\
Get a second opinion by forkjoin on this: {question}
{_WHOLE}

Spawn one agent, of another agent program or model than you are where there is one. Its task: look at the repository at
this commit, judge by itself, change nothing, and end with its verdict, its reasons by file and line, and what it is not
sure of. Give it the question and the facts, not your own view. wait_agents and get_result; then tell me where it agrees
with you, where not, and who is right in your judgement."""


def bake_off(task: Goal) -> str:
    """Let several agents do the same task, and keep the best."""
    return f"""\
Let three agents of forkjoin do this same task, each for itself: {task}
{_WHOLE}

Spawn them in one call, with the same task and `verify`, of different models or agent programs where there are some.
When they have ended, compare: verify, then read_diff of each that passed. Tell me in a small table who did what, and
which is best and why. Merge that one when I say so; leave the others until I have seen them."""


PROMPTS = tuple(Prompt.from_function(one) for one in (fan_out, review_results, merge_all, second_opinion, bake_off))
