"""The ways out: a signed message to a URL, or an e-mail. Each tries once; who calls it tries again."""

import asyncio
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import httpx2
import orjson

from services.contracts.signatures import signed
from services.portal.notifications.config import Notifications, Rule, Smtp, Webhook
from services.runtime.outward import pinned

SECONDS = 15.0
GONE = 410


class NotSent(Exception):
    """It did not arrive, as far as one can know; the message says why."""


class Unwanted(NotSent):
    """The other side wants no more of these (410)."""


class Channels:
    """Sends notices by the rules' channels."""

    def __init__(self, config: Notifications) -> None:
        self._config = config
        self._http = httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False)

    async def send(self, rule: Rule, notice: Mapping[str, Any], now: datetime) -> None:
        """Raises NotSent."""
        if rule.webhook:
            await self._post(rule.webhook, notice, now)
        elif self._config.smtp:
            message = letter(notice, self._config.smtp.sender, rule.email, self._config.page)
            try:
                await asyncio.to_thread(_mail, self._config.smtp, message)
            except (OSError, smtplib.SMTPException) as error:
                raise NotSent(f"{self._config.smtp.host}: {error}"[:500]) from error

    async def _post(self, webhook: Webhook, notice: Mapping[str, Any], now: datetime) -> None:
        data = {"title": notice["title"], **notice["data"]}
        body = orjson.dumps({"type": notice["kind"], "timestamp": notice["time"], "data": data})
        headers = {"content-type": "application/json", **signed(webhook.key, notice["id"], now, body)}
        try:
            to = await pinned(webhook.url, inside=webhook.inside)
            headers |= to.headers
            # The answer's body is of no interest, and is not read: it may be endless.
            async with self._http.stream(
                "POST", to.url, content=body, headers=headers, extensions=to.extensions
            ) as answer:
                status = answer.status_code
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise NotSent(f"{type(error).__name__}: {error}"[:500]) from error
        if status == GONE:
            raise Unwanted("it answered 410: it wants no more of these")
        if not 200 <= status < 300:
            raise NotSent(f"it answered {status}")

    async def close(self) -> None:
        await self._http.aclose()


def letter(notice: Mapping[str, Any], sender: str, to: Sequence[str], page: str | None) -> EmailMessage:
    """The same notice sent again has the same Message-ID."""
    message = EmailMessage()
    message["Subject"] = " ".join(f"[halfsure] {notice['title']}".split())
    message["From"], message["To"] = sender, ", ".join(to)
    message["Message-ID"] = f"<{notice['id']}@{sender.rpartition('@')[2]}>"
    message["Date"] = format_datetime(datetime.fromisoformat(notice["time"]))
    message["Auto-Submitted"] = "auto-generated"
    told = [f"{name}: {_text(value)}" for name, value in notice["data"].items() if value not in (None, "")]
    link = [f"\n{page.rstrip('/')}/"] if page else []
    message.set_content("\n".join([notice["title"], "", *told, *link]) + "\n")
    return message


def _text(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _mail(smtp: Smtp, message: EmailMessage) -> None:
    context = ssl.create_default_context()
    if smtp.security == "tls":
        server = smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=SECONDS, context=context)
    else:
        server = smtplib.SMTP(smtp.host, smtp.port, timeout=SECONDS)
    with server:
        if smtp.security == "starttls":
            server.starttls(context=context)
        if smtp.user and smtp.password_file:
            server.login(smtp.user, smtp.password_file.read_text().strip())
        server.send_message(message)
