"""Both ends of the daemon's socket: the relay and the client side, and the server with its limits.

`relay` and `daemon_connection` import only the standard library. The others may import everything below.
"""
