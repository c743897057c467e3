"""Which of several candidates for one task is the best, by what is recorded of them. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from forkjoin.core.model import FINAL, Agent, Result, State


def rank_candidates(candidates: Iterable[Agent], results: Mapping[int, Result]) -> list[Agent]:
    """Candidates, the best first.

    That is who succeeded; then who has commits; then who has the higher score, any before none; then the smaller diff;
    then the older. Those that have not ended come last, but for those whose work was discarded.
    """

    def place(agent: Agent) -> tuple[bool, bool, bool, bool, bool, float, int, int]:
        result = results.get(agent.number) if agent.state in FINAL else None
        score = result.score if result else None
        lines = count_changed_lines(result) if result else 0
        idle = not (result and result.commits)  # its diff is the smallest of all
        failed = agent.state is not State.SUCCEEDED
        live = agent.state not in FINAL
        return agent.discarded, live, failed, idle, score is None, -(score or 0), lines, agent.number

    return sorted(candidates, key=place)


def find_winner(ranked: Sequence[Agent]) -> Agent | None:
    """The first of candidates that are ranked; none as long as one has not ended, or where none has succeeded."""
    decided = ranked and all(agent.state in FINAL for agent in ranked)
    return ranked[0] if decided and ranked[0].state is State.SUCCEEDED else None


def count_changed_lines(result: Result) -> int:
    """How many lines were changed."""
    return result.insertions + result.deletions
