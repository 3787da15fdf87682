"""Whoever is told: a stand-in for somebody's webhook, and a real SMTP server that only keeps what it is given."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import uvicorn
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from conftest import wait_until
from fastapi import FastAPI, Request, Response
from loopback import self_signed
from sources.processes import free_port

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"
USER, PASSWORD = "halfsure", "hush hush"


class Hook:
    """Answers with the statuses it is told to, then with 200; keeps headers and bodies."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = ""

    async def take(self, request: Request) -> Response:
        self.calls.append((dict(request.headers), await request.body()))
        status = self.answers.pop(0) if self.answers else 200
        return Response(b"x" * 100, status, headers={"location": "/elsewhere"} if status in (302, 307) else {})


@contextlib.asynccontextmanager
async def hooked(hook: Hook | None = None) -> AsyncIterator[Hook]:
    hook, app, port = hook or Hook(), FastAPI(), free_port()
    app.add_api_route("/{path:path}", hook.take, methods=["POST", "GET"])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    hook.url = f"http://127.0.0.1:{port}/hook"
    yield hook
    server.should_exit = True
    await serving


class Mailbox:
    """aiosmtpd's handler: every letter, to whom, and whether it came under TLS by somebody who has logged in."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], Message, bool]] = []
        self.refusals = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refusals:
            self.refusals -= 1
            return "451 Try again later"
        private = session.ssl is not None and bool(session.authenticated)
        content: Any = envelope.content
        self.letters.append((list(envelope.rcpt_tos), message_from_bytes(content), private))
        return "250 OK"


@contextlib.contextmanager
def mail_server(folder: Path) -> Iterator[tuple[Mailbox, int, Path]]:
    """A server that wants STARTTLS and a login: its mailbox, port, and the certificate to trust it by."""
    certificate, key = folder / "mail.pem", folder / "mail.key"
    self_signed(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        good = isinstance(given, LoginPassword) and (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    mailbox, port = Mailbox(), free_port()
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        authenticator=login,
        auth_required=True,
    )
    controller.start()
    try:
        yield mailbox, port, certificate
    finally:
        controller.stop()
