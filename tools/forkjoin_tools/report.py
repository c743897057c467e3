"""What an agent itself tells: report_progress."""

from typing import Annotated

from forkjoin.event import Reported, with_text
from forkjoin.spec import Text
from pydantic import Field

from forkjoin_tools.desk import Desk
from forkjoin_tools.strict import Arguments, tool


class Report(Arguments):
    text: Annotated[Text, Field(max_length=500)]


@tool(always_loaded=True)
async def report_progress(desk: Desk, arguments: Report) -> str:
    """Tell whoever leads in one line where you stand, whenever a step of your task is done."""
    await desk.store.note(
        await desk.agent(), [(with_text(Reported(arguments.text), desk.rooms.environments.redact), -1)]
    )
    return "Noted."
