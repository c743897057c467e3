"""forkjoin budget: what agents have spent, and may spend."""

from typing import Annotated, Any

import typer

from forkjoin.cli.mcp_client import call_tool
from forkjoin.cli.safe_output import AsJson, agent_line, print_answer
from forkjoin.core.error import CallerError

#: Values of the argument `amount` that are not an amount.
_NAMED_BUDGETS = ("unlimited", "default")


def budget(
    amount: Annotated[
        str | None,
        typer.Argument(help="USD in total, unlimited, or default (from the settings). Without it, only show."),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Set the budget of this agent instead of the repository's.")] = None,
    lead: Annotated[str | None, typer.Option(help="Set the budget of this lead, as forkjoin budget names it.")] = None,
    reset_spent: Annotated[bool, typer.Option("--anew", help="Reset the amount spent to 0.")] = False,
    json: AsJson = False,
) -> None:
    """Show what this repository's agents have spent and may spend, or set it."""
    if agent:
        return _set_agent_budget(agent, _parse_usd(amount), json=json)
    limit = amount if amount in (None, *_NAMED_BUDGETS) else _parse_usd(amount)
    answer = call_tool("budget", budget_usd=limit, lead=lead, anew=reset_spent or None)
    return print_answer(answer, map(_budget_line, answer["budgets"]), json=json)


def _parse_usd(amount: str | None) -> float:
    """Return the amount as a number. It may begin with "$".

    Raises:
        CallerError: No amount is given, or it is not a number.
    """
    try:
        return float((amount or "").removeprefix("$"))
    except ValueError:
        raise CallerError(
            f"{amount!r} is not an amount. Give USD, e.g. 2.50" if amount else "give an amount in USD, e.g. 2.50"
        ) from None


def _set_agent_budget(agent: str, usd: float, *, json: bool) -> None:
    answer = call_tool("set_budget", id=agent, budget_usd=usd)
    money = f"{answer['spent_usd']:g} of {answer['budget_usd']:g} USD spent"
    print_answer(answer, [agent_line(answer, money)], json=json)


def _budget_line(budget: dict[str, Any]) -> str:
    whose = f"lead {budget['lead']}" if budget.get("lead") else "the repository"
    most = f" of {budget['limit_usd']:g}" if "limit_usd" in budget else ""
    reserved = f", {budget['reserved_usd']:g} reserved" if budget["reserved_usd"] else ""
    return f"{whose}: {budget['spent_usd']:g}{most} USD spent{reserved}"
