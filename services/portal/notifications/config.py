"""Who is told what, and how: the TOML file that HALFSURE_PORTAL_NOTIFICATIONS names.

Addresses come from this file alone: nobody can have the portal call one by REST.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.signatures import key_of

Kind = Literal[
    "labels.waiting",
    "run.failed",
    "gate.refused",
    "model.promoted",
    "model.rolled_back",
    "dead_letters.over",
    "buffer.over",
]


class NotificationsUnusable(SystemExit):
    """The file cannot be used; the process ends with this sentence, which names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("this must be an address like https://hooks.example/halfsure")
    if parts.username or parts.password:
        raise ValueError("leave user and password out of the address; messages are signed")
    return url


def _one_line(text: str) -> str:
    if not text.isprintable() or "@" not in text.strip("@"):
        raise ValueError("this must be an address like team@example.org")
    return text


Url = Annotated[str, AfterValidator(_http)]
Address = Annotated[str, AfterValidator(_one_line), Field(max_length=254)]


class Smtp(_Part):
    """The mail server, which must offer TLS unless `security` says otherwise."""

    host: str
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: Address
    user: str | None = None
    password_file: Path | None = Field(default=None, description="what `user` logs in with")

    @model_validator(mode="after")
    def _private(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.user and self.security == "none":
            raise ValueError("a password is not sent in the clear; say starttls or tls")
        return self


class Webhook(_Part):
    """Where signed messages go (Standard Webhooks); `secret_file` holds the whsec_... that both sides share."""

    url: Url
    inside: bool = False  # the name may lead into a private network
    secret_file: Path

    @property
    def key(self) -> bytes:
        return key_of(self.secret_file.read_text().strip())


class Rule(_Part):
    """What somebody wants to be told; the limits are numbers from which on they are."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    on: list[Kind] = Field(min_length=1)
    projects: list[str] = Field(default_factory=list, description="none: all")
    webhook: Webhook | None = None
    email: list[Address] = Field(default_factory=list, max_length=50)
    labels_waiting: int = Field(default=1, ge=1, description="tasks that wait for an annotator")
    dead_letters: int = Field(default=1, ge=1, description="messages on one service's shelf")
    buffer: int = Field(default=1000, ge=1, description="units of work of one replica whose events wait for the broker")
    quiet_seconds: float = Field(default=900.0, ge=0, description="between two notices that the same limit is passed")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if (self.webhook is None) == (not self.email):
            raise ValueError("say webhook or email, and another rule for the other")
        return self

    def wants(self, kind: str, project: str) -> bool:
        """Whether this is to be told; what is about no project (`*`) goes by its kind alone."""
        return kind in self.on and (not self.projects or project == "*" or project in self.projects)

    def limit(self, kind: str) -> int:
        return {"labels.waiting": self.labels_waiting, "dead_letters.over": self.dead_letters}.get(kind, self.buffer)


class Notifications(_Part):
    """The file."""

    page: Url | None = Field(default=None, description="where people open the portal, for links")
    smtp: Smtp | None = None
    rules: list[Rule] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("every rule has a name of its own")
        if self.smtp is None and any(rule.email for rule in self.rules):
            raise ValueError("a rule with email needs [smtp]")
        return self


def load(path: Path | None) -> Notifications:
    """What the file says; no rules without one. Raises NotificationsUnusable."""
    if path is None:
        return Notifications()
    try:
        found = Notifications.model_validate(tomllib.loads(path.read_text()))
        for rule in found.rules:
            if rule.webhook:
                _ = rule.webhook.key
        if found.smtp and found.smtp.password_file:
            found.smtp.password_file.read_text()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NotificationsUnusable(f"{path}: {where or 'the file'}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise NotificationsUnusable(f"{path}: {error}") from error
    return found
