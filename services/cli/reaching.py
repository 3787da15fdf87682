"""How commands reach the REST API: of the stack on this machine, or through the origin of a portal or ingress."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from services.cli.rest import Rest
from services.cli.stack import Stack
from services.cli.terminal import load_settings

QUEUE = "label-queue"

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="HALFSURE_URL", help="Origin of a portal or ingress (default: this machine's stack)."),
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="HALFSURE_TOKEN", help="Bearer token (default: the operator's of this stack)."),
]
ProjectOption = Annotated[str, typer.Option("--project", "-p", envvar="HALFSURE_PROJECT", help="The project.")]

Answer = TypeVar("Answer")


class NothingToReach(Exception):
    """No services are named and none run here, or there is no token for those that are named."""


def reach(home: Path | None, url: str | None, token: str | None, project: str) -> Rest:
    """A client of one project. Raises NothingToReach.

    The token of this machine's stack goes nowhere else.
    """
    if url is not None:
        if token is None:
            raise NothingToReach("--url needs a token: put it into HALFSURE_TOKEN")
        origin = url.rstrip("/")
        return Rest(lambda app_id: f"{origin}/api/{app_id}", token, project)
    stack = Stack(load_settings(home))
    if token is None and not stack.home.is_locked():
        raise NothingToReach(f"no stack runs in {stack.home.path}; `halfsure up` starts one, --url names another")
    return Rest(stack.url, token or stack.token, project)


def run(rest: Rest, work: Callable[[Rest], Awaitable[Answer]]) -> Answer:
    """What `work` makes of the client, which is closed after it."""

    async def whole() -> Answer:
        try:
            return await work(rest)
        finally:
            await rest.close()

    return asyncio.run(whole())
