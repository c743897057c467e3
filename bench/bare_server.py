"""What a user would write without forkjoin: a bare MCP server of one tool."""

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
async def echo(text: str) -> str:
    """Give the text back."""
    return text


server.run()
