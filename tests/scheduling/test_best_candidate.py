"""The choice of the best candidate from the records."""

import random
from dataclasses import replace

import pytest
from forkjoin.core.model import FINAL, Agent, Merge, State
from forkjoin.core.result import Result
from forkjoin.scheduling.best_candidate import count_changed_lines, find_winner, rank_candidates
from hypothesis import given
from hypothesis import strategies as st
from support.agent_records import change, make_agent

OK, BAD = State.SUCCEEDED, State.FAILED

Contest = tuple[list[Agent], dict[int, Result]]


def contest(*candidates: tuple[State, float | None, int]) -> Contest:
    """Return candidates with these states, scores and numbers of changed lines."""
    agents = [make_agent(n, state=state) for n, (state, _, _) in enumerate(candidates, 1)]
    results = {
        n: Result(1, state, "", "", score=score, insertions=lines, deletions=0)
        for n, (state, score, lines) in enumerate(candidates, 1)
        if state in FINAL
    }
    return agents, results


@pytest.mark.parametrize(
    ("reason", "candidates", "order"),
    [
        ("success before score", [(BAD, 9, 1), (OK, 1, 5)], [2, 1]),
        ("the higher score", [(OK, -1.5, 1), (OK, 2, 5), (OK, 0, 1)], [2, 3, 1]),
        ("any score before no score", [(OK, None, 1), (OK, -5, 9)], [2, 1]),
        ("the smaller diff", [(OK, 1, 9), (OK, 1, 2), (OK, 1, 4)], [2, 3, 1]),
        ("the older agent", [(OK, None, 3), (OK, None, 3)], [1, 2]),
        ("ended before running", [(State.RUNNING, None, 0), (State.LOST, None, 0)], [2, 1]),
    ],
)
def test_the_best_candidate_is_first(
    reason: str, candidates: list[tuple[State, float | None, int]], order: list[int]
) -> None:
    assert [agent.number for agent in rank_candidates(*contest(*candidates))] == order, reason


def test_a_candidate_with_commits_is_before_a_candidate_without_even_if_its_score_is_lower() -> None:
    agents, results = contest((OK, 9, 0), (OK, None, 5), (BAD, 9, 5))
    results |= {n: replace(results[n], commits=("0123456 work",)) for n in (2, 3)}
    assert [agent.number for agent in rank_candidates(agents, results)] == [2, 1, 3]


def test_a_candidate_whose_work_was_discarded_is_last_unless_all_were_discarded() -> None:
    agents, results = contest((OK, 9, 1), (OK, 5, 1), (BAD, 1, 1))
    discarded = [change(agent, removed=1.0) for agent in agents]
    assert [agent.number for agent in rank_candidates([discarded[0], *agents[1:]], results)] == [2, 3, 1]
    assert [agent.number for agent in rank_candidates(discarded, results)] == [1, 2, 3]
    merged = replace(discarded[0], merge=Merge.MERGED)
    assert [agent.number for agent in rank_candidates([merged, *agents[1:]], results)] == [1, 2, 3]


def test_no_candidate_wins_before_all_have_ended_or_if_none_has_succeeded() -> None:
    assert find_winner(rank_candidates(*contest((OK, 1, 1), (State.QUEUED, None, 0)))) is None
    assert find_winner(rank_candidates(*contest((BAD, 1, 1), (State.STOPPED, None, 0)))) is None
    assert find_winner([]) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(list(State)), st.none() | st.floats(-3, 3), st.integers(0, 3)), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_no_candidate_is_better_than_the_winner(
    candidates: list[tuple[State, float | None, int]], rng: random.Random
) -> None:
    agents, results = contest(*candidates)
    ranked = rank_candidates(agents, results)
    rng.shuffle(agents)
    assert rank_candidates(agents, results) == ranked, "the ranking does not depend on the order of the agents"
    winner = find_winner(ranked)
    succeeded = [agent for agent in agents if agent.state is OK]
    assert (winner is None) == (not succeeded or any(agent.state not in FINAL for agent in agents))
    for other in succeeded if winner else []:
        assert winner
        best_result, other_result = results[winner.number], results[other.number]
        assert winner.state is OK
        assert other_result.score is None or (best_result.score is not None and best_result.score >= other_result.score)
        assert best_result.score != other_result.score or count_changed_lines(best_result) <= count_changed_lines(
            other_result
        )
        assert (best_result.score, count_changed_lines(best_result)) != (
            other_result.score,
            count_changed_lines(other_result),
        ) or winner.number <= other.number
    worse = [replace(agent, state=State.FAILED) if agent is not winner else agent for agent in agents]
    assert winner is None or find_winner(rank_candidates(worse, results)) is not None, (
        "the winner does not need other candidates"
    )
