"""What the records tell of a target's own commit, so that verify need not be run on it."""

from forkjoin.landing.answer import INTENT
from forkjoin.landing.order import Order


async def is_known_to_pass(order: Order, commit: str) -> bool:
    """Whether this is what the last landing on the target has moved it to, by the same verify, made ready alike."""
    store, landing = order.rooms.store, order.landing
    last = next(iter(await store.moves(landing.project, landing.target)), None)
    if last is None or last.move is None or INTENT.validate_json(last.move).move.new != commit:
        return False
    alike = (last.verify, last.checkout) == (landing.verify, landing.checkout)
    return alike and await store.recipe(last) == order.recipe
