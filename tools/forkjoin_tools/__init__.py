"""The MCP server: one module per family of tools, and their common base.

Modules may import everything of forkjoin below the transport, and the MCP SDK.
"""
