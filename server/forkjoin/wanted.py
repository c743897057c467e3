"""What a repository itself wants: its forkjoin.toml, used for exactly the content that a person has trusted.

It is read from the caller's own checkout, never from an agent's worktree.
"""

from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.branch.repository import Checkout
from forkjoin.config import Recipe, check_settings
from forkjoin.error import CallerError
from forkjoin.paths import Home
from forkjoin.regular import read_regular
from forkjoin.trust import Trust, Trusted, digest

#: Bytes; what is larger is no file of settings.
_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A repository's forkjoin.toml, checked."""

    file: Path
    digest: str
    recipe: Recipe


def read_wanted(home: Home, checkout: Checkout) -> Wanted | None:
    """The forkjoin.toml of a checkout, trusted or not; none where there is none. Blocks.

    Raises:
        CallerError: It can't be read, or something in it is unknown or wrong.
    """
    if checkout.top is None or Path(checkout.top).is_relative_to(home.worktrees.resolve()):
        return None
    file = Path(checkout.top, "forkjoin.toml")
    try:
        content = read_regular(file, _LIMIT + 1)
    except OSError as error:
        raise CallerError(f"{file}: {error.strerror}") from error
    if content is None:
        return None
    if len(content) > _LIMIT:
        raise CallerError(f"{file}: is larger than {_LIMIT // 1024} KB")
    return Wanted(file, digest(content), check_settings(Recipe, file, content))


async def find_recipe(home: Home, checkout: Checkout) -> tuple[Recipe, str | None]:
    """What the caller's repository wants, if a person has trusted that; else nothing, and a note of what to do."""
    wanted = await to_thread.run_sync(read_wanted, home, checkout)
    if wanted is None or wanted.recipe == Recipe():
        return Recipe(), None
    trusted = await to_thread.run_sync(Trust(home.trust).read, checkout.common_dir) or Trusted()
    if wanted.digest in trusted.files:
        return wanted.recipe, None
    return Recipe(), (
        f"{wanted.file} was not used: nobody has trusted what that file says now. "
        "A person can look at it and say so with: forkjoin trust"
    )
