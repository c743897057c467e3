"""forkjoin budget: what agents have spent and may; a person alone raises what a lead or a repository may spend."""

from typing import Annotated, Any

import typer

from forkjoin.cli.mcp_client import call_tool
from forkjoin.cli.safe_output import AsJson, agent_line, print_answer
from forkjoin.core.error import CallerError

_WORDS = ("unlimited", "default")


def budget(
    amount: Annotated[
        str | None,
        typer.Argument(help="USD in all, unlimited, or default (as the settings say); without it, only show."),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Of this agent, instead of the whole repository.")] = None,
    lead: Annotated[str | None, typer.Option(help="Of this lead in it, as forkjoin budget names them.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Count from now: what was spent before counts no more.")] = False,
    json: AsJson = False,
) -> None:
    """Show what this repository's agents have spent and may, or set it."""
    if agent:
        return _fund(agent, _read(amount), json=json)
    limit = amount if amount in (None, *_WORDS) else _read(amount)
    answer = call_tool("budget", budget_usd=limit, lead=lead, anew=anew or None)
    return print_answer(answer, map(_line, answer["budgets"]), json=json)


def _read(amount: str | None) -> float:
    try:
        return float((amount or "").removeprefix("$"))
    except ValueError:
        raise CallerError(f"{amount or 'no amount'}: give an amount in USD, such as 2.50") from None


def _fund(agent: str, usd: float, *, json: bool) -> None:
    answer = call_tool("set_budget", id=agent, budget_usd=usd)
    money = f"{answer['spent_usd']:g} of {answer['budget_usd']:g} USD spent"
    print_answer(answer, [agent_line(answer, money)], json=json)


def _line(shared: dict[str, Any]) -> str:
    whose = f"lead {shared['lead']}" if shared.get("lead") else "the repository"
    most = f" of {shared['limit_usd']:g}" if "limit_usd" in shared else ""
    reserved = f", {shared['reserved_usd']:g} reserved" if shared["reserved_usd"] else ""
    return f"{whose}: {shared['spent_usd']:g}{most} USD spent{reserved}"
