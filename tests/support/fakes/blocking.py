"""An MCP server with one tool that waits for an agent and returns its whole transcript, for comparison with forkjoin.

The server's argument is a folder with a finished transcript for each task, named after the task.
"""

import sys
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("blocking")


@server.tool()
async def run_agent(task: str) -> str:
    """Give a task to a coding agent, wait for its end, and return its transcript."""
    return (Path(sys.argv[1]) / task).read_text()


if __name__ == "__main__":
    server.run()
