"""REST of notifications, for operators: which rules there are, what waits, what was given up; and a test."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from services.contracts.problem import not_found
from services.portal.notifications.config import Rule
from services.portal.notifications.desk import Desk
from services.runtime import http
from services.runtime.access import Caller, caller_with

Operator = Annotated[Caller, caller_with("operator")]


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=http.StrictRoute)

    @router.get("/v1/notifications")
    async def notifications(caller: Operator) -> dict[str, Any]:
        """Addresses and secrets are in the file alone."""
        book = await desk.book()
        rows = {"waiting": book.waiting, "given_up": book.given_up}
        seen = {name: [row for row in part if caller.sees(row["project"])] for name, part in rows.items()}
        return {"rules": [_shown(rule) for rule in desk.rules.values() if _visible(rule, caller)], **seen}

    @router.post("/v1/notifications:test", status_code=202)
    async def test(caller: Operator, rule: Annotated[str, Query(max_length=64)]) -> dict[str, Any]:
        """Send a notice that only says that the way is open; `GET /v1/notifications` tells if it is not."""
        found = desk.rules.get(rule)
        if found is None or not _visible(found, caller):
            raise not_found("rule", rule)
        return {"id": await desk.test(found), "rule": rule}

    return router


def _visible(rule: Rule, caller: Caller) -> bool:
    return all(caller.sees(project) for project in rule.projects or ["*"])


def _shown(rule: Rule) -> dict[str, Any]:
    limits = {kind: rule.limit(kind) for kind in rule.on if kind.endswith((".waiting", ".over"))}
    via = "webhook" if rule.webhook else "email"
    return {"name": rule.name, "on": rule.on, "projects": rule.projects, "via": via, "limits": limits}
