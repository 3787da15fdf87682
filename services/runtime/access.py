"""Who may call what: bearer tokens, stored hashed, with a role and projects."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import structlog
from fastapi import Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, ValidationError

from services.contracts.problem import Problem, faults, not_found

log = structlog.get_logger()

Role = Literal["viewer", "annotator", "reviewer", "operator", "admin"]
RANK = {role: rank for rank, role in enumerate(get_args(Role))}


@dataclass(frozen=True)
class Caller:
    """Whoever holds a token; `rate`, where it has one of its own, is in requests a second."""

    subject: str
    role: Role
    projects: tuple[str, ...]
    rate: float | None = None

    def may(self, role: Role) -> bool:
        return RANK[self.role] >= RANK[role]

    def sees(self, project: str) -> bool:
        return "*" in self.projects or project in self.projects


PEER = Caller("peer", "viewer", ("*",))
Provider = Callable[[str], Awaitable[Caller | None]]


class Tokens:
    """Who holds which token: by the tokens file, read again when it changes, and by an identity provider if there is
    one. Neither: nobody may call."""

    def __init__(self, path: Path | None, now: Callable[[], datetime], provider: Provider | None = None) -> None:
        self._path = path
        self._now = now
        self._provider = provider
        self._stamp: tuple[int, int] | None = None
        self._callers: dict[str, tuple[Caller, datetime | None]] = {}

    async def caller(self, token: str) -> Caller | None:
        """Nobody for a token that is unknown, revoked or over."""
        self._refresh()
        caller, until = self._callers.get(sha256(token.encode()).hexdigest(), (None, None))
        if caller is not None:
            return caller if until is None or self._now() < until else None
        return await self._provider(token) if self._provider else None

    def _refresh(self) -> None:
        if self._path is None or not self._path.exists():
            return
        told = self._path.stat()
        stamp = (told.st_mtime_ns, told.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                rows = _File.model_validate_json(self._path.read_bytes()).tokens
            except ValidationError as error:
                reason = faults(error)
                log.error("the tokens file is not read; the tokens before it stay", path=str(self._path), reason=reason)
                return
            self._callers = {row.sha256: (row.caller, row.expires_at) for row in rows}


class _Row(BaseModel):
    sha256: str
    subject: str
    role: Role
    projects: tuple[str, ...]
    rate: float | None = None
    expires_at: AwareDatetime | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.subject, self.role, self.projects, self.rate)


class _File(BaseModel):
    tokens: list[_Row]


async def authenticate(request: Request) -> Caller:
    """The caller. Raises a 401 problem without a known token, and a 429 one when it asks too often.

    Another service, which comes by the sidecar and so with the sidecar's token, may read.
    """
    if known := getattr(request.state, "caller", None):
        return known
    service = request.app.state.service
    if "authorization" not in request.headers and service.from_sidecar(request):
        return PEER
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    tokens: Tokens = request.app.state.tokens
    caller = await tokens.caller(token.strip()) if scheme.lower() == "bearer" and token else None
    if caller is None:
        raise Problem(
            401,
            "unauthorized",
            "Send the token that `halfsure up` printed: Authorization: Bearer TOKEN",
            headers={"www-authenticate": "Bearer"},
        )
    _not_too_often(service, caller, token)
    request.state.caller = caller
    return caller


def _not_too_often(service: Any, caller: Caller, token: str) -> None:
    rate = service.settings.rate if caller.rate is None else caller.rate
    if rate and (wait := service.limits.take(sha256(token.encode()).hexdigest(), rate, service.clock.now())):
        detail = f"This token may make {rate:g} requests a second."
        raise Problem(429, "too-many-requests", detail, headers={"retry-after": str(math.ceil(wait))})


def needs(role: Role) -> Any:
    """A route's `dependencies=[needs("annotator")]`; 403 when the role is too low."""

    def check(caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        if not caller.may(role):
            raise Problem(403, "forbidden", f"This needs the role {role}; yours is {caller.role}.")
        return caller

    return Depends(check)


def caller_with(role: Role) -> Callable[..., Any]:
    """The same as a parameter: `caller: Annotated[Caller, caller_with("annotator")]`."""
    return needs(role)


def project_of(
    caller: Annotated[Caller, Depends(authenticate)],
    project: Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")] = None,
) -> str:
    """`?project=`, else the token's only project, else `default`. Another's project is not found."""
    only = caller.projects[0] if len(caller.projects) == 1 and caller.projects[0] != "*" else "default"
    name = project or only
    if not caller.sees(name):
        raise not_found("project", name)
    return name


Project = Annotated[str, Depends(project_of)]
