"""Ports that stay ours while nothing listens on them."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def reserve(ip: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A TCP port that refuses connections until a server of ours listens on it, and again when it stops.

    The returned socket is bound and never listens. Linux lets another one with SO_REUSEADDR bind to the same port as
    long as no two of them listen, and gives the port to nobody's outgoing connection. Raises OSError.
    """
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((ip, port))
    except BaseException:
        reservation.close()
        raise
    return reservation


def port_of(reservation: socket.socket) -> int:
    port: int = reservation.getsockname()[1]
    return port
