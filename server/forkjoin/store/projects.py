"""The records of projects: repositories, their configuration, and the memory that their agents need."""

from forkjoin.core.merge_job import MergeJob
from forkjoin.core.model import Agent, Project
from forkjoin.core.settings import RepositorySettings
from forkjoin.store import rows
from forkjoin.store.database import Records


class Projects(Records):
    """The part of the store for projects."""

    async def get_or_add(self, common_dir: str) -> Project:
        """Return the project with this common git folder, recording it if it is new."""
        found = await self.find(common_dir)
        if found is None:
            await self._database.execute("add_project", common_dir=common_dir)
            found = await self.find(common_dir)
            assert found
        return found

    async def find(self, common_dir: str) -> Project | None:
        """Return the project with this common git folder, or None."""
        return await self._database.read_one(lambda row: Project(**row), "project", common_dir=common_dir)

    async def get(self, number: int) -> Project:
        return Project(**await self._database.read("project_numbered", number=number))

    async def recipe(self, of: Agent | MergeJob) -> RepositorySettings:
        """Return the trusted repository configuration of the agent or merge job.

        The configuration was recorded when the agent was spawned or the merge was requested.
        """
        query = "recipe" if isinstance(of, Agent) else "landing_recipe"
        return rows.recipe(await self._database.read(query, number=of.number))

    async def memory_peaks(self) -> dict[tuple[int, str], int]:
        """Return the most memory in bytes that agents needed, by project and program."""
        found = await self._database.read_rows("peaks")
        return {(row["project"], row["program"]): row["bytes"] for row in found}

    async def set_memory_peak(self, project: int, program: str, size: int) -> None:
        await self._database.execute("set_peak", project=project, program=program, bytes=size)
