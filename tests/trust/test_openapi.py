"""Whatever the OpenAPI of a service lets one send, or does not: never a server error, always a known answer."""

import asyncio
import os
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from conftest import TOKENS
from filled import APPS, Filled, filled
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from report import note
from schemathesis import GenerationMode

CASES = int(os.environ.get("CASES", "40"))  # for each operation and mode
SEED = int(os.environ.get("SEED", secrets.randbelow(1 << 32)))
AWAY = 503  # said of another service, which is not there in memory
STREAM = "/v1/events"  # has no end; tests/service/test_portal.py asks it
# What takes away what the others ask about comes last.
LATE = ("DELETE", "discard", ":unload", ":rollback")

for kind in ("application/x-ndjson", "image/png", "image/jpeg"):
    schemathesis.serializer.alias(kind, "application/octet-stream")

pytestmark = pytest.mark.usefixtures("brisk")


class Fuzzer:
    """Sends what schemathesis makes up to a service in memory, and looks at each answer."""

    def __init__(self, one: Filled) -> None:
        self.one = one
        self.seen: Counter[int] = Counter()
        self.wrong: dict[str, str] = {}
        self.schema = schemathesis.openapi.from_dict(one.running.service.api.openapi())

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        found = [one.ok() for one in self.schema.get_all_operations()]
        for operation in sorted(found, key=lambda one: any(part in one.label for part in LATE)):
            if operation.path == STREAM:
                continue
            for mode in GenerationMode:
                try:
                    self._drive(operation, operation.as_strategy(generation_mode=mode), loop)
                except Unsatisfiable:
                    assert mode is GenerationMode.NEGATIVE, operation.label
                    # there is nothing wrong that one could send to it

    def _drive(self, operation: Any, strategy: Any, loop: asyncio.AbstractEventLoop) -> None:
        @seed(SEED)
        @settings(
            max_examples=CASES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy, real=st.booleans())
        def cases(case: Any, real: bool) -> None:
            if real:
                known = {name: value for name, value in self.one.names.items() if name in (case.path_parameters or {})}
                case.path_parameters = {**(case.path_parameters or {}), **known}
                case.query = {name: value for name, value in (case.query or {}).items() if name != "project"}
            asyncio.run_coroutine_threadsafe(self._send(operation, case), loop).result(60)

        cases()

    async def _send(self, operation: Any, case: Any) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://test")
        kwargs = {
            k: v for k, v in kwargs.items() if k in ("method", "url", "headers", "params", "json", "data", "files")
        }
        try:
            made = requests.Request(**kwargs).prepare()
        except (ValueError, requests.RequestException):
            return  # no client could send it
        headers = {**made.headers, "authorization": f"Bearer {TOKENS['admin']}"}
        body = made.body.encode() if isinstance(made.body, str) else made.body or b""
        answer = await self.one.running.client.request(made.method, made.url, headers=headers, content=body)
        self.seen[answer.status_code] += 1
        if fault := _fault(operation, answer):
            self.wrong.setdefault(f"{operation.label}: {fault}", f"{made.url} {body[:300]!r} -> {answer.text[:300]}")


def _fault(operation: Any, answer: Any) -> str | None:
    """What the OpenAPI does not know of an answer."""
    status = answer.status_code
    if status >= 500 and status != AWAY:
        return f"server error {status}"
    if status >= 400:
        kind = answer.headers.get("content-type", "")
        whole = kind == "application/problem+json" and answer.json()["status"] == status and answer.json()["detail"]
        return None if whole else f"{status} is no problem+json"
    known = operation.definition.raw["responses"]
    return None if str(status) in known else f"{status} is not documented"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("app", APPS)
async def test_no_request_makes_a_server_error(app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"SEED={SEED} CASES={CASES}")
    async with filled(app, tmp_path, monkeypatch) as one:
        fuzzer = Fuzzer(one)
        await asyncio.to_thread(fuzzer.run, asyncio.get_running_loop())
    errors = sum(count for status, count in fuzzer.seen.items() if status >= 500 and status != AWAY)
    note("schemathesis", {"cases": fuzzer.seen.total(), "server_errors": errors}, app)
    print(app, dict(fuzzer.seen))
    told = "\n".join(f"{what}\n    {how}" for what, how in sorted(fuzzer.wrong.items()))
    assert not fuzzer.wrong, told
