"""Prices of model calls."""

import pytest
from forkjoin.agents.output_reader import price
from forkjoin.core.event import Spent
from forkjoin.core.result import Usage
from forkjoin.store.rows import Cost


def test_cache_reads_and_cache_writes_have_their_own_prices() -> None:
    used = Usage(input_tokens=1000, output_tokens=500, cache_read_tokens=20_000, cache_write_tokens=5000)
    (cost,) = price([Spent("p", used, "claude-opus-4-6")], "")
    assert cost.cost_usd == pytest.approx((1000 * 5 + 500 * 25 + 20_000 * 0.5 + 5000 * 6.25) / 1e6)


def test_usage_without_a_model_counts_for_the_model_of_the_last_call() -> None:
    tokens = Usage(output_tokens=400)
    without_begin = [Spent("a", tokens), Spent("b", tokens, "claude-haiku-4-5"), Spent("c", tokens)]
    began = [Spent("d", tokens, "claude-sonnet-4-5", begins=True), Spent("e", tokens)]
    assert [
        (cost.model, round(cost.cost_usd or 0, 6)) for cost in price([*without_begin, *began], "claude-opus-4-8")
    ] == [
        ("claude-opus-4-8", 0.01),
        ("claude-haiku-4-5", 0.002),
        ("claude-opus-4-8", 0.01),
        ("claude-sonnet-4-5", 0.006),
        ("claude-sonnet-4-5", 0.006),
    ]


def test_an_unknown_model_has_no_price() -> None:
    assert price([Spent("p", Usage(output_tokens=400), "gpt-of-tomorrow")], "") == [Cost("p", "gpt-of-tomorrow", None)]
