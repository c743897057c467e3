"""A merge job together with everything that running it needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from forkjoin.core.error import GitRefusedError
from forkjoin.core.merge_job import MergeJob
from forkjoin.core.settings import RepositorySettings
from forkjoin.git import refs
from forkjoin.services import Services


@dataclass(frozen=True, slots=True)
class MergeContext:
    """A merge job with its repository, and with the environment of the lead or agent that asked for the merge."""

    services: Services
    job: MergeJob
    common_dir: str
    environment: Mapping[str, str] | None  #: `None` if a restart of the daemon has lost it
    recipe: RepositorySettings

    @property
    def target_name(self) -> str:
        """The target's short branch name, for messages."""
        return refs.short_name(self.job.target)

    @property
    def lock_owner(self) -> str:
        """The name under which this home locks a checkout's index."""
        return f"forkjoin {self.services.home.worktrees}"

    @property
    def verify(self) -> str | None:
        """The verify command to run.

        `None` if the job has no verify command, or is a dry run.
        """
        return None if self.job.dry_run else self.job.verify

    async def is_ancestor(self, commit: str, tip: str) -> bool:
        """Return whether `commit` is an ancestor of `tip`, or the same commit.

        Return False if one of the two no longer exists.
        """
        try:
            return await refs.is_ancestor(self.common_dir, commit, tip)
        except GitRefusedError:
            return False
