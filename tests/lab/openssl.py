"""A TLS server on OpenSSL's own sockets, in a thread.

asyncio's server closes a connection whose handshake it refuses without sending the alert; every other server sends it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 10.0
"""A peer that does nothing for so long is given up, so that a test that hangs leaves no thread behind."""

Service = Callable[[ssl.SSLSocket], None]
"""What happens after the handshake, until the peer leaves. OSError ends it as well."""


def until_closed(tls: ssl.SSLSocket) -> None:
    """Read until the peer says goodbye, and say it as well."""
    while tls.recv(65536):
        pass
    tls.unwrap()


def deaf(tls: ssl.SSLSocket) -> None:
    """Look at nothing that comes after the handshake, until the peer is gone."""
    with socket.socket(fileno=tls.detach()) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        while sock.recv(65536):
            pass


class OpenSslServer:
    """Makes a handshake with one peer after the other and serves it; a context manager with a `port`."""

    def __init__(self, context: ssl.SSLContext, service: Service = until_closed) -> None:
        self._context = context
        self._service = service
        self.server_names: list[str | None] = []
        """The name that each peer asked for."""

    def __enter__(self) -> Self:
        self._context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() alone does not
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with plain:
                self._meet(plain)

    def _meet(self, plain: socket.socket) -> None:
        plain.settimeout(PATIENCE_SECONDS)
        try:
            with self._context.wrap_socket(plain, server_side=True) as tls:
                self._service(tls)
        except OSError:
            pass  # a peer that was refused, or has gone
