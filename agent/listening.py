"""The socket that is listened on, by the server and by what stands in for it: the standard library alone."""

from __future__ import annotations

import errno
import socket

EVERYWHERE = "::"
"""Every address of the pod, whatever its families: the kubelet of an IPv6-only cluster knows no other than IPv6."""


def listening_on(host: str, port: int, *, backlog: int) -> socket.socket:
    """Listen on the first address a host has. `::` takes IPv4 as well, and IPv4 alone where there is no IPv6.

    asyncio would make every IPv6 socket one for IPv6 alone. Raises OSError.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    everywhere = host == EVERYWHERE
    both = everywhere and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    except OSError as error:
        if not everywhere or error.errno == errno.EADDRINUSE:
            raise
    return socket.create_server(("", port), backlog=backlog)
