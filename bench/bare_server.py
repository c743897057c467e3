"""The smallest MCP server, with one tool, for comparison with forkjoin."""

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
async def echo(text: str) -> str:
    """Return the text."""
    return text


server.run()
