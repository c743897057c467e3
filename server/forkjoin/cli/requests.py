"""forkjoin requests and answer: what agents ask and wait for, and a person's answer."""

from typing import Annotated, Any

import typer

from forkjoin.cli.mcp_client import call_tool
from forkjoin.cli.safe_output import AsJson, omitted_lines, print_answer
from forkjoin.core.error import CallerError


def requests(
    id: Annotated[str | None, typer.Argument(help="Of one alone, which is told whole.")] = None,  # noqa: A002
    json: AsJson = False,
) -> None:
    """List what this repository's agents ask and wait for."""
    answer = call_tool("list_requests", request_id=id)
    print_answer(answer, [*map(request_line, answer["requests"]), *omitted_lines(answer)], json=json)


def request_line(request: dict[str, Any]) -> str:
    """A request as a person reads it: none of its own lines looks like the first of another."""
    text = request["text"].replace("\n", "\n    ")
    asks = "asks" if request["kind"] == "question" else "asks whether it may"
    return f"{request['request_id']}  {request['id']} {asks} (for {request['expires_s']} s more): {text}"


def answer(
    request: Annotated[str, typer.Argument(help="Its id, as forkjoin requests tells it.")],
    text: Annotated[str | None, typer.Argument(help="The answer to a question.")] = None,
    allow: Annotated[bool, typer.Option("--allow", help="Permit it.")] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Do not permit it.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, as its agent is told.")] = None,
    json: AsJson = False,
) -> None:
    """Answer what an agent asks; the first answer counts."""
    if (text is not None) + allow + deny != 1:
        raise CallerError("give one of: a text, --allow, --deny")
    decision = "allow" if allow else "deny" if deny else None
    told = call_tool("answer_request", request_id=request, answer=text, decision=decision, reason=reason)
    print_answer(told, [f"{told['request_id']}  {told['id']}  {told['said']}"], json=json)
