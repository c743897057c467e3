"""forkjoin requests and answer: questions and permission requests of agents."""

from typing import Annotated, Any

import typer

from forkjoin.cli.mcp_client import call_tool
from forkjoin.cli.safe_output import AsJson, omitted_lines, print_answer
from forkjoin.core.error import CallerError


def requests(
    id: Annotated[str | None, typer.Argument(help="Show only this request, in full.")] = None,  # noqa: A002
    json: AsJson = False,
) -> None:
    """List the questions and permission requests of this repository's agents."""
    answer = call_tool("list_requests", request_id=id)
    print_answer(answer, [*map(request_line, answer["requests"]), *omitted_lines(answer)], json=json)


def request_line(request: dict[str, Any]) -> str:
    """Return a request as text.

    Its own lines are indented, so that none looks like another request.
    """
    text = request["text"].replace("\n", "\n    ")
    asks = "asks" if request["kind"] == "question" else "asks whether it may"
    return f"{request['request_id']}  {request['id']} {asks} (for {request['expires_s']} s more): {text}"


def answer(
    request: Annotated[str, typer.Argument(help="Request id, as in forkjoin requests.")],
    text: Annotated[str | None, typer.Argument(help="The answer to a question.")] = None,
    allow: Annotated[bool, typer.Option("--allow", help="Grant the permission.")] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Deny the permission.")] = False,
    reason: Annotated[str | None, typer.Option(help="The reason, which the agent reads.")] = None,
    json: AsJson = False,
) -> None:
    """Answer an agent's request. The first answer counts."""
    if (text is not None) + allow + deny != 1:
        raise CallerError("give exactly one of: a text, --allow, --deny")
    decision = "allow" if allow else "deny" if deny else None
    result = call_tool("answer_request", request_id=request, answer=text, decision=decision, reason=reason)
    print_answer(result, [f"{result['request_id']}  {result['id']}  {result['said']}"], json=json)
