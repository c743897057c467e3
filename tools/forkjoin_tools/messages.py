"""message_agent."""

from forkjoin.agents.message_delivery import Delivery, send_message
from forkjoin.core.agent_spec import Text

from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool


class MessageAgent(Arguments):
    id: Id
    text: Text


class MessageAnswer(AgentRow):
    delivery: Delivery


@tool()
async def message_agent(call: ToolCall, arguments: MessageAgent) -> MessageAnswer:
    """Send an agent a message in its conversation.

    A running claude reads it now; any other agent gets it as its next turn; an ended agent is queued again for it.
    Then wait_agents.
    """
    agent, delivery = await send_message(call.services, call.caller, await call.find(arguments.id), arguments.text)
    return MessageAnswer(**row_fields(agent), delivery=delivery)
