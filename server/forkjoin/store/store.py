"""The records of one FORKJOIN_HOME."""

from pathlib import Path

from anyio import to_thread

from forkjoin.store.agents import Agents
from forkjoin.store.baselines import Baselines
from forkjoin.store.budgets import Budgets
from forkjoin.store.calls import Calls
from forkjoin.store.database import Database
from forkjoin.store.database_migration import open_database
from forkjoin.store.events import Events
from forkjoin.store.findings import Findings
from forkjoin.store.lifecycle import Lifecycle
from forkjoin.store.mcp_tasks import McpTasks
from forkjoin.store.merges import Merges
from forkjoin.store.messages import Messages
from forkjoin.store.port_blocks import first_port
from forkjoin.store.projects import Projects
from forkjoin.store.requests import Requests
from forkjoin.store.restored_agents import RestoredAgents
from forkjoin.store.results import Results
from forkjoin.store.retention import Retention
from forkjoin.store.scratch_worktrees import ScratchWorktrees


class Store:
    """All records, in parts by subject. Make it with `open_store`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.changes = database.changes
        self.projects = Projects(database)
        self.agents = Agents(database)
        self.lifecycle = Lifecycle(database)
        self.results = Results(database)
        self.events = Events(database)
        self.messages = Messages(database)
        self.requests = Requests(database)
        self.findings = Findings(database)
        self.budgets = Budgets(database)
        self.merges = Merges(database)
        self.scratch_worktrees = ScratchWorktrees(database)
        self.baselines = Baselines(database)
        self.calls = Calls(database)
        self.mcp_tasks = McpTasks(database)
        self.retention = Retention(database)
        self.restored_agents = RestoredAgents(database)

    async def close(self) -> None:
        await self.database.close()


async def open_store(file: Path) -> Store:
    """Open the records at `file`, making or migrating the database first if necessary."""
    return await to_thread.run_sync(lambda: Store(Database(open_database(file), first_port(file.parent))))
