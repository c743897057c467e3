"""Who wins among candidates, by what is recorded of them."""

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


def contest(*told: tuple[State, float | None, int]) -> Contest:
    """Candidates of whom these are the states, the scores and how many lines they changed."""
    agents = [make_agent(n, state=state) for n, (state, _, _) in enumerate(told, 1)]
    results = {
        n: Result(1, state, "", "", score=score, insertions=lines, deletions=0)
        for n, (state, score, lines) in enumerate(told, 1)
        if state in FINAL
    }
    return agents, results


@pytest.mark.parametrize(
    ("why", "told", "order"),
    [
        ("success before score", [(BAD, 9, 1), (OK, 1, 5)], [2, 1]),
        ("the higher score", [(OK, -1.5, 1), (OK, 2, 5), (OK, 0, 1)], [2, 3, 1]),
        ("any score before none", [(OK, None, 1), (OK, -5, 9)], [2, 1]),
        ("the smaller diff", [(OK, 1, 9), (OK, 1, 2), (OK, 1, 4)], [2, 3, 1]),
        ("the older", [(OK, None, 3), (OK, None, 3)], [1, 2]),
        ("ended before not", [(State.RUNNING, None, 0), (State.LOST, None, 0)], [2, 1]),
    ],
)
def test_the_best_is_first(why: str, told: list[tuple[State, float | None, int]], order: list[int]) -> None:
    assert [agent.number for agent in rank_candidates(*contest(*told))] == order, why


def test_one_with_commits_is_before_one_that_did_nothing_whatever_its_score() -> None:
    agents, results = contest((OK, 9, 0), (OK, None, 5), (BAD, 9, 5))
    results |= {n: replace(results[n], commits=("0123456 work",)) for n in (2, 3)}
    assert [agent.number for agent in rank_candidates(agents, results)] == [2, 1, 3]


def test_one_whose_work_was_discarded_is_behind_all_unless_they_all_are() -> None:
    agents, results = contest((OK, 9, 1), (OK, 5, 1), (BAD, 1, 1))
    gone = [change(agent, removed=1.0) for agent in agents]
    assert [agent.number for agent in rank_candidates([gone[0], *agents[1:]], results)] == [2, 3, 1]
    assert [agent.number for agent in rank_candidates(gone, results)] == [1, 2, 3]
    merged = replace(gone[0], merge=Merge.MERGED)
    assert [agent.number for agent in rank_candidates([merged, *agents[1:]], results)] == [1, 2, 3]


def test_nobody_has_won_before_all_have_ended_nor_where_none_has_succeeded() -> None:
    assert find_winner(rank_candidates(*contest((OK, 1, 1), (State.QUEUED, None, 0)))) is None
    assert find_winner(rank_candidates(*contest((BAD, 1, 1), (State.STOPPED, None, 0)))) is None
    assert find_winner([]) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(list(State)), st.none() | st.floats(-3, 3), st.integers(0, 3)), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_of_any_candidates_none_is_better_than_the_winner(
    told: list[tuple[State, float | None, int]], draw: random.Random
) -> None:
    agents, results = contest(*told)
    ranked = rank_candidates(agents, results)
    draw.shuffle(agents)
    assert rank_candidates(agents, results) == ranked, "whatever the order in which they are told"
    winner = find_winner(ranked)
    succeeded = [agent for agent in agents if agent.state is OK]
    assert (winner is None) == (not succeeded or any(agent.state not in FINAL for agent in agents))
    for other in succeeded if winner else []:
        assert winner
        mine, its = results[winner.number], results[other.number]
        assert winner.state is OK
        assert its.score is None or (mine.score is not None and mine.score >= its.score)
        assert mine.score != its.score or count_changed_lines(mine) <= count_changed_lines(its)
        assert (mine.score, count_changed_lines(mine)) != (
            its.score,
            count_changed_lines(its),
        ) or winner.number <= other.number
    worse = [replace(agent, state=State.FAILED) if agent is not winner else agent for agent in agents]
    assert winner is None or find_winner(rank_candidates(worse, results)) is not None, "it needs no other to win"
