"""What is to be landed, and what it takes to do it."""

from collections.abc import Mapping
from dataclasses import dataclass

from forkjoin.core.error import GitRefusedError
from forkjoin.core.model import MergeJob
from forkjoin.core.settings import Recipe
from forkjoin.git.refs import is_ancestor, short_name
from forkjoin.services import Services


@dataclass(frozen=True, slots=True)
class MergeContext:
    """A landing, where it takes place, and the environment of whoever asked for it, if that is known."""

    services: Services
    landing: MergeJob
    common_dir: str
    environment: Mapping[str, str] | None
    recipe: Recipe

    @property
    def into(self) -> str:
        """The target, as people call it."""
        return short_name(self.landing.target)

    @property
    def owner(self) -> str:
        """Who holds a checkout that is moved: this home."""
        return f"forkjoin {self.services.home.worktrees}"

    @property
    def verify(self) -> str | None:
        """What must pass before it lands; a dry run runs nothing."""
        return None if self.landing.dry_run else self.landing.verify

    async def has(self, commit: str, tip: str) -> bool:
        """Whether `tip` has a commit; it has not one that went with its branch."""
        try:
            return await is_ancestor(self.common_dir, commit, tip)
        except GitRefusedError:
            return False
