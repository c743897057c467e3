"""Requests of agents: examples, calls that wait for an answer, and the lead's view of them."""

from functools import partial
from typing import Any

from support.harness import GIVE_UP_S, Lead, ToolRefusedError

DANGEROUS = {"tool_name": "Bash", "input": {"command": "rm -rf build"}, "tool_use_id": "t1"}
QUESTION = {"question": "Tabs\nor \x1b[31m spaces?"}


class Call:
    """A tool call that runs in a task of its own. `answer` is its result or its error's text, `None` until it ends."""

    def __init__(self, caller: Lead, tool: str, arguments: dict[str, Any]) -> None:
        self._act = partial(caller.call, tool, **arguments)
        self.answer: Any = None

    async def run(self) -> None:
        try:
            self.answer = await self._act()
        except ToolRefusedError as error:
            self.answer = str(error)


async def news(lead: Lead) -> list[Any]:
    """Return the requests that `wait_agents` reports, once there are any."""
    answer = await lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert not answer["timed_out"]
    return list(answer["requests"])


async def is_asked(lead: Lead, count: int) -> bool:
    """Return whether exactly this number of requests waits for the lead's answer."""
    return bool((await lead.call("get_status"))["requests"] == count)
