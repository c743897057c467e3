"""The ports on which programs listen."""

import socket

from forkjoin.store.port_blocks import listening


def test_a_port_is_found_while_a_socket_listens_on_it() -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as one:
            try:
                one.bind((address, 0))
            except OSError:
                continue  # no IPv6 here
            port = one.getsockname()[1]
            assert port not in listening()
            one.listen()
            assert port in listening()
        assert port not in listening()
