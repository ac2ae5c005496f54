"""A mail server on loopback that wants TLS and a password, and keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.lab.agents import eventually
from tests.lab.certificates import Certificate


class Mailbox:
    """What came, in order."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[EmailMessage] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        # Of this policy it is that class.
        message: Any = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append(message)
        return "250 OK"

    async def message(self, is_meant: Callable[[EmailMessage], bool], what: str) -> EmailMessage:
        """Wait for one for which the condition holds: the first."""

        async def come() -> EmailMessage | None:
            return next(filter(is_meant, self.received), None)

        found: EmailMessage = await eventually(come, f"{what}, got {[message['Subject'] for message in self.received]}")
        return found


def part(message: EmailMessage, kind: str) -> str:
    """The text of a message as `plain` or as `html`, with line ends of one character."""
    found = message.get_body(preferencelist=(kind,))
    assert found is not None, message
    text: str = found.get_content()
    return text.replace("\r\n", "\n")


@asynccontextmanager
async def mailbox(certificate: Certificate, user: str, password: str) -> AsyncIterator[Mailbox]:
    """A server that takes mail after STARTTLS from who has this password."""

    def authenticated(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login.decode(), data.password.decode()) == (user, password))

    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(
            box,
            hostname="localhost",
            tls_context=certificate.server_context(),
            require_starttls=True,
            auth_required=True,
            # Its questions for name and password are not those that Alertmanager answers.
            auth_exclude_mechanism=("LOGIN",),
            authenticator=authenticated,
        ),
        "127.0.0.1",
        0,
    )
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()
