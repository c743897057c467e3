"""What model calls cost, where their program tells only what they used: by the prices that genai-prices keeps."""

from collections.abc import Iterable

from forkjoin.core.event import Spent
from forkjoin.core.model import Usage
from forkjoin.store.rows import Cost


def price(spent: Iterable[Spent], model: str) -> list[Cost]:
    """The cost of each; `model` is that of the call under way before them, where that is known. Blocks."""
    costs: list[Cost] = []
    for part in spent:
        own = part.model or model
        model = own if part.begins else model
        costs.append(Cost(part.part, own, _cost(own, part.usage)))
    return costs


def _cost(model: str, usage: Usage) -> float | None:
    """In USD; none where the model's price is not known."""
    import genai_prices  # 0.2 s, which a daemon is spared in which no program tells its usage

    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    counted = genai_prices.Usage(
        input_tokens=read,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        return float(genai_prices.calc_price(counted, model).total_price)
    except (LookupError, ValueError):
        return None
