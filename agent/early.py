"""Answers the kubelet's start-up probe while the agent is being loaded, so that no task waits for that.

Loading takes a third of a second of CPU: four seconds under a limit of 100m, in which a native sidecar with a start-up
probe keeps the task from starting. Threads and sockets are all that is needed here.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.listening import BACKLOG, answer, listening_on

PATIENCE_SECONDS = 0.25
"""For one client, while the others wait."""
SIZE_LIMIT_BYTES = 1 << 20
"""Of a configuration that is looked at."""

_TELLING = (b"gate", b"listen", b"server", b"\\", b"<<")
"""Without one of these no configuration has a start gate or listens elsewhere: a key is written as it is, or with
escapes, or comes from elsewhere in the same file."""


def undecided(config: Path | None) -> bool:
    """Whether a file, or one of a directory, may configure a start gate, or where to listen. Raises nothing.

    Told from its words, since reading it properly is part of what takes long. A comment that has one makes a pod start
    as late as it would without all this, and no earlier than it should.
    """
    if config is None:
        return False
    try:
        for file in config.iterdir() if config.is_dir() else [config]:
            if not file.is_file():
                continue  # to open a pipe might never end
            with file.open("rb") as stream:
                text = stream.read(SIZE_LIMIT_BYTES + 1)
            if len(text) > SIZE_LIMIT_BYTES or any(word in text for word in _TELLING):
                return True
    except OSError:
        return False  # what cannot be read configures nothing
    return False


@contextmanager
def answering(host: str, port: int) -> Iterator[None]:
    """Listen while inside, and answer in a thread. Where it cannot listen, it does not: the agent will say why."""
    try:
        listening = listening_on(host, port, backlog=BACKLOG)
    except OSError:
        yield
        return
    listening.setblocking(False)
    until, enough = socket.socketpair()
    thread = threading.Thread(target=_answer_all, args=(listening, until), name="early answers", daemon=True)
    try:
        with suppress(RuntimeError):  # there may be no more threads to be had
            thread.start()
        yield
    finally:
        enough.close()
        if thread.ident is not None:
            thread.join()
        until.close()
        listening.close()


def _answer_all(listening: socket.socket, until: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        selector.register(until, selectors.EVENT_READ)
        while all(key.fileobj is listening for key, _ in selector.select()):
            with suppress(OSError), listening.accept()[0] as connection:
                connection.settimeout(PATIENCE_SECONDS)
                answer(connection, {b"/startupz": "ok\n", b"/healthz": "ok\n"}, "starting\n")
