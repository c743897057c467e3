"""`forkjoin demo`: a sample repository, a scripted agent, and a lead that uses the real MCP server.

Modules may import the command line's formatting and everything below. The scripted agent imports the standard library.
"""
