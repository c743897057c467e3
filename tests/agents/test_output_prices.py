"""Prices of model calls."""

import pytest
from forkjoin.agents.output_reader import price
from forkjoin.core.event import Spent
from forkjoin.core.result import Usage
from forkjoin.store.rows import Cost


def test_what_was_read_from_a_cache_and_written_to_it_has_its_own_price() -> None:
    used = Usage(input_tokens=1000, output_tokens=500, cache_read_tokens=20_000, cache_write_tokens=5000)
    (cost,) = price([Spent("p", used, "claude-opus-4-6")], "")
    assert cost.cost_usd == pytest.approx((1000 * 5 + 500 * 25 + 20_000 * 0.5 + 5000 * 6.25) / 1e6)


def test_a_part_without_a_model_is_of_the_call_that_began_last() -> None:
    tokens = Usage(output_tokens=400)
    told = [Spent("a", tokens), Spent("b", tokens, "claude-haiku-4-5"), Spent("c", tokens)]
    began = [Spent("d", tokens, "claude-sonnet-4-5", begins=True), Spent("e", tokens)]
    assert [(cost.model, round(cost.cost_usd or 0, 6)) for cost in price([*told, *began], "claude-opus-4-8")] == [
        ("claude-opus-4-8", 0.01),
        ("claude-haiku-4-5", 0.002),
        ("claude-opus-4-8", 0.01),
        ("claude-sonnet-4-5", 0.006),
        ("claude-sonnet-4-5", 0.006),
    ]


def test_of_a_model_that_nobody_knows_there_is_no_price() -> None:
    assert price([Spent("p", Usage(output_tokens=400), "gpt-of-tomorrow")], "") == [Cost("p", "gpt-of-tomorrow", None)]
