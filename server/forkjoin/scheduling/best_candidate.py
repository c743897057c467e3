"""The choice of the best of several candidates for one task. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from forkjoin.core.model import FINAL, Agent, State
from forkjoin.core.result import Result


def rank_candidates(candidates: Iterable[Agent], results: Mapping[int, Result]) -> list[Agent]:
    """Return the candidates, the best first.

    Of two candidates, the better one has succeeded, has commits, has a higher score (no score counts least), has
    changed fewer lines, or has the lower agent number. An earlier criterion counts before a later one. Candidates that
    have not ended come after those that have. Candidates whose work was discarded come last.

    Args:
        results: The results of candidates that have ended, by agent number.
    """

    def sort_key(agent: Agent) -> tuple[bool, bool, bool, bool, bool, float, int, int]:
        result = results.get(agent.number) if agent.state in FINAL else None
        score = result.score if result else None
        lines = count_changed_lines(result) if result else 0
        has_no_commits = not (result and result.commits)
        failed = agent.state is not State.SUCCEEDED
        live = agent.state not in FINAL
        return agent.discarded, live, failed, has_no_commits, score is None, -(score or 0), lines, agent.number

    return sorted(candidates, key=sort_key)


def find_winner(ranked: Sequence[Agent]) -> Agent | None:
    """Return the first ranked candidate once all candidates have ended.

    Return `None` before, or if the first one has not succeeded.
    """
    is_decided = ranked and all(agent.state in FINAL for agent in ranked)
    return ranked[0] if is_decided and ranked[0].state is State.SUCCEEDED else None


def count_changed_lines(result: Result) -> int:
    return result.insertions + result.deletions
