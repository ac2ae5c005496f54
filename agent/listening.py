"""The socket that is listened on, and what stands in for the server on it: the standard library alone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping

DEFAULT_PORT = 9733
BACKLOG = 16
"""Connections that wait for who stands in for the server."""
EVERYWHERE = "::"
"""Every address of the pod, whatever its families: the kubelet of an IPv6-only cluster knows no other than IPv6."""
_REQUEST_LIMIT_BYTES = 8192


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


def answer(connection: socket.socket, fine: Mapping[bytes, str], otherwise: str) -> None:
    """Answer one request: 200 and a text for these paths, 503 and another text for all others. Raises OSError."""
    path = (*connection.recv(_REQUEST_LIMIT_BYTES).split(b" ", 2), b"", b"")[1]
    status, text = ("200 OK", fine[path]) if path in fine else ("503 Service Unavailable", otherwise)
    body = text.encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nServer: netprobe\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
