"""getaddrinfo(3) itself: whatever /etc/hosts, nsswitch.conf and the libc of this process say."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

THREAD_LIMIT = 32
"""How many lookups may be under way, those among them whose run has ended long ago."""


class SystemLookups:
    """Runs getaddrinfo, which cannot be stopped, in threads that nobody waits for.

    An executor's threads would hold up the end of the process for as long as libc's last retry takes.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(THREAD_LIMIT)

    async def addresses(self, name: str, family: socket.AddressFamily) -> list[str]:
        """The addresses of a name, in libc's order, each once. Raises socket.gaierror, OSError."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | OSError) -> None:
            self._free.release()
            if answer.done():
                return  # the run did not wait
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found: list[str] | OSError
            try:
                # As bytes: what Python's codec for names refuses (the root) would end the thread without an answer.
                infos = socket.getaddrinfo(name.encode("ascii"), None, family=family, type=socket.SOCK_STREAM)
                # glibc gives 127.0.0.1 twice where /etc/hosts has localhost for ::1 as well, as Debian's has.
                found = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in infos))
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(settle, found)

        try:
            threading.Thread(target=look_up, name=f"getaddrinfo {name}", daemon=True).start()
        except BaseException:  # no thread may be had: a limit on processes
            self._free.release()
            raise
        return await answer
