"""MCP prompts, which Claude Code shows as slash commands.

Claude Code (2.1.197) passes only the first typed word as the argument, and gives the model the whole text in
`<command-args>`. Other clients pass the whole text as the argument.
"""

from typing import Annotated

from mcp.server.mcpserver.prompts import Prompt
from pydantic import Field

Goal = Annotated[str, Field(description="The work to do.")]
Agents = Annotated[str, Field(description="Agent ids or names. Default: all that have ended and are not merged.")]
Question = Annotated[str, Field(description="What to judge: a change, a design, a claim.")]

_FULL_TEXT = "(If there is a <command-args>, it holds the full text.)"
_DEFAULT_AGENTS = "If none are named: all in list_agents that have ended and are not merged."


def fan_out(goal: Goal) -> str:
    """Split a goal into tasks that do not overlap, and give each to its own agent."""
    return f"""\
Fork this work out to forkjoin agents: {goal}
{_FULL_TEXT}

1. Read as much of the repository as you need to split the work into tasks. No two tasks change the same files. A task
   that needs the result of another gets `after`. A few large tasks are better than many small ones.
2. Write each task for someone who doesn't see this conversation: goal, files, limits, acceptance. Give each agent its
   `paths`, and a `verify` command that shows the task is done.
3. If tasks depend on each other or may overlap, call spawn_agents with dry_run first, and correct what it reports.
4. Tell me the tasks, one line each. Then spawn all agents in one call, and call wait_agents.
5. When they have ended, tell me each outcome in one line. Merge nothing until I say so."""


def review_results(agents: Agents = "") -> str:
    """Review the work of agents before it is merged."""
    return f"""\
Review the work of these agents: {agents}
{_FULL_TEXT} {_DEFAULT_AGENTS}

For each agent call get_result, then read the whole read_diff. Did it do everything its task asked? Did it change
anything that was not asked for? Would its verify have failed without the change? Then call check_conflicts for all.
Tell me about each agent in at most two lines: merge it, or why not. Once I agree, ask the agents to
correct what they can, with message_agent."""


def merge_all(agents: Agents = "") -> str:
    """Merge the work of agents, verified together."""
    return f"""\
Merge the work of these agents: {agents}
{_FULL_TEXT} {_DEFAULT_AGENTS}

Use one merge_worktree call, with the command that runs all tests of this repository as `verify`. Don't merge agents
that failed: name them to me. If an agent conflicts or is rejected, tell me the reason and what you would do, and wait
for my decision. Ask me before you change a protected branch. Finally call remove_worktrees for the merged agents."""


def second_opinion(question: Question) -> str:
    """Have an agent of another model or vendor judge something independently."""
    return f"""\
Get a second opinion from a forkjoin agent on this: {question}
{_FULL_TEXT}

Spawn one agent with another agent program or model than yours, if there is one. Its task: read the repository at this
commit, judge for itself, change nothing, and end with its verdict, its reasons by file and line, and what it is unsure
of. Give it the question and the facts, but not your own view. Call wait_agents and get_result. Then tell me where it
agrees with you, where it doesn't, and who you think is right."""


def bake_off(task: Goal) -> str:
    """Let several agents do the same task, and keep the best result."""
    return f"""\
Let three forkjoin agents do this same task, each on its own: {task}
{_FULL_TEXT}

Spawn them in one call with the same task and `verify`, and with different models or agent programs if you have some.
When they have ended, compare their verify, and the read_diff of each that passed. Show me a small table of what each
did, and say which is best and why. Merge that one when I say so. Keep the others until I have seen them."""


PROMPTS = tuple(
    Prompt.from_function(prompt) for prompt in (fan_out, review_results, merge_all, second_opinion, bake_off)
)
