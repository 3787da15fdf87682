"""Who may call what: bearer tokens, stored hashed, with a role and projects."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, Query, Request

from services.contracts.problem import Problem, not_found

Role = Literal["viewer", "annotator", "reviewer", "operator", "admin"]
RANK = {role: rank for rank, role in enumerate(get_args(Role))}


@dataclass(frozen=True)
class Caller:
    """Whoever holds a token."""

    subject: str
    role: Role
    projects: tuple[str, ...]

    def may(self, role: Role) -> bool:
        return RANK[self.role] >= RANK[role]

    def sees(self, project: str) -> bool:
        return "*" in self.projects or project in self.projects


PEER = Caller("peer", "viewer", ("*",))


class Tokens:
    """The tokens file, read again when it changes. No file: nobody may call."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: float | None = None
        self._callers: dict[str, Caller] = {}

    def caller(self, token: str) -> Caller | None:
        self._refresh()
        return self._callers.get(sha256(token.encode()).hexdigest())

    def _refresh(self) -> None:
        if self._path is None or not self._path.exists():
            return
        stamp = self._path.stat().st_mtime
        if stamp != self._stamp:
            rows = json.loads(self._path.read_text())["tokens"]
            self._callers = {row["sha256"]: Caller(row["subject"], row["role"], tuple(row["projects"])) for row in rows}
            self._stamp = stamp


def authenticate(request: Request) -> Caller:
    """The caller. Raises a 401 problem without a known token.

    Another service, which comes by the sidecar and so with the sidecar's token, may read.
    """
    if known := getattr(request.state, "caller", None):
        return known
    service = request.app.state.service
    if "authorization" not in request.headers and service.from_sidecar(request):
        return PEER
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    tokens: Tokens = request.app.state.tokens
    caller = tokens.caller(token.strip()) if scheme.lower() == "bearer" and token else None
    if caller is None:
        raise Problem(
            401,
            "unauthorized",
            "Send the token that `halfsure up` printed: Authorization: Bearer TOKEN",
            headers={"www-authenticate": "Bearer"},
        )
    request.state.caller = caller
    return caller


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
