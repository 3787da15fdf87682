"""Who may call what: the role table of tests/roles.py over every route of every service, with tokens and without."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from conftest import TOKENS
from filled import APPS, MINE, Filled, filled, operations
from report import count
from roles import BODIES, COMMON, SIGNED, TABLE, Row
from training import SPEC
from worlds import classifier

from services.runtime.access import Role

pytestmark = pytest.mark.usefixtures("brisk")
ROLES = get_args(Role)
STREAM = "/v1/events"  # has no end: what it lets nobody hear is asked with a project that is not there


@pytest.fixture(params=APPS)
async def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> AsyncIterator[Filled]:
    async with filled(request.param, tmp_path, monkeypatch) as one:
        yield one


def rows(one: Filled) -> tuple[Row, ...]:
    return COMMON + TABLE[one.running.service.app_id]


def body_of(one: Filled, method: str, path: str) -> dict[str, Any]:
    """A body that fits, with real names in it."""
    if (method, path) in (("POST", "/v1/projects"), ("PUT", "/v1/projects/{name}")):
        return {"json": SPEC}
    if (method, path) == ("POST", "/v1/models"):
        content, manifest = classifier(3.0)
        return {"json": {"artefact": content.hex(), "manifest": manifest.model_dump(mode="json")}}
    if (method, path) not in BODIES:
        return {}
    text = orjson.dumps(BODIES[method, path]).decode()
    for name, value in one.names.items():
        text = text.replace(f'"{{{name}}}"', f'"{value}"')
    return {"content": text, "headers": {"content-type": "application/json"}}


async def call(one: Filled, method: str, path: str, token: str | None, **query: str) -> Any:
    how = body_of(one, method, path)
    headers = {**how.pop("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})}
    whole = one.path(path)
    for name, value in query.items():
        whole += f"{'&' if '?' in whole else '?'}{name}={value}"
    return await one.running.client.request(method, whole, headers=headers, **how)


def test_every_route_has_a_row_and_every_row_a_route(service: Filled) -> None:
    app = service.running.service.app_id
    found = {(method, path) for method, path in operations(service.running.service)}
    found -= {(method, path) for name, method, path in SIGNED if name == app}
    told = [(method, path) for _, method, path in rows(service)]
    assert found == set(told)
    assert len(told) == len(set(told))
    count("role_rows", len(told), app)


async def test_without_a_token_or_with_an_unknown_one_nobody_is_answered(service: Filled) -> None:
    wrong = []
    for _, method, path in rows(service):
        for token in (None, "nobody", "viewer-token-and-more"):
            answer = await call(service, method, path, token)
            if answer.status_code != 401 or answer.headers["www-authenticate"] != "Bearer":
                wrong.append((method, path, token, answer.status_code))
    assert wrong == [], "\n".join(map(str, wrong))


async def test_a_role_below_is_refused_and_the_role_is_not(service: Filled) -> None:
    wrong = []
    for lowest, method, path in rows(service):
        for role in ROLES[: ROLES.index(lowest)]:
            answer = await call(service, method, path, TOKENS[role])
            if answer.status_code != 403:
                wrong.append((method, path, role, answer.status_code))
    for lowest, method, path in rows(service):
        if path == STREAM:
            continue
        answer = await call(service, method, path, TOKENS[lowest])
        if answer.status_code in (401, 403, 500):  # 503: of a route that asks a service which is not there
            wrong.append((method, path, lowest, answer.status_code))
    assert wrong == [], "\n".join(map(str, wrong))


async def test_a_token_of_another_project_finds_nothing(service: Filled) -> None:
    """Asked for by name, the project is not there; and in its own project, none of the other's ids is."""
    wrong = []
    paths = service.running.service.api.openapi()["paths"]
    for _, method, path in rows(service):
        takes = {one["name"] for one in paths[path][method.lower()].get("parameters", ())}
        if "project" in takes:
            answer = await call(service, method, path, "other-token", project=MINE)
            if answer.status_code != 404:
                wrong.append((method, path, f"project={MINE}", answer.status_code))
        if path == STREAM or (method, path) == MAKES:
            continue
        answer = await call(service, method, path, "other-token")
        if (named := "{" in path or (method, path) in NAMED) and answer.status_code != 404:
            wrong.append((method, path, "its own project", answer.status_code))
        leaks = [name for name in service.names.values() if len(name) > 8 and name in answer.text]
        if leaks and not named:
            wrong.append((method, path, "its own project", leaks))
    assert wrong == [], "\n".join(map(str, wrong))


# Where a body or a query names what is the other's, and the only route that may make something of its name here.
NAMED = {("GET", "/v1/models/compare"), ("POST", "/v1/projects")}
NAMED |= {row for row, body in BODIES.items() if re.search("'{", str(body))}
MAKES = ("PUT", "/v1/policies/{policy_id}")
