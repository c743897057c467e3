"""What a lead would have without forkjoin: an MCP server whose one tool waits for an agent, and returns its whole log.

Its argument is a folder of logs that agents have left, by the names of their tasks.
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
