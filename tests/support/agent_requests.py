"""Requests of agents, as tests make them and as leads see them."""

from functools import partial
from typing import Any

from support.harness import GIVE_UP_S, Lead, ToolRefusedError

DANGEROUS = {"tool_name": "Bash", "input": {"command": "rm -rf build"}, "tool_use_id": "t1"}
QUESTION = {"question": "Tabs\nor \x1b[31m spaces?"}


class Call:
    """A tool call under way, and its answer."""

    def __init__(self, whose: Lead, tool: str, given: dict[str, Any]) -> None:
        self._act = partial(whose.call, tool, **given)
        self.answer: Any = None

    async def run(self) -> None:
        try:
            self.answer = await self._act()
        except ToolRefusedError as error:
            self.answer = str(error)


async def news(lead: Lead) -> list[Any]:
    """Return the requests that a wait reports."""
    told = await lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert not told["timed_out"]
    return list(told["requests"])


async def is_asked(lead: Lead, count: int) -> bool:
    return bool((await lead.call("get_status"))["requests"] == count)
