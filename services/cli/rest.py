"""The public REST API, as a patient client: a service that is being restarted is waited for."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

PATIENCE = 90.0  # seconds that a service may be away
PAGE = 500  # rows of a list in one answer


class Refused(Exception):
    """A service has answered with a problem."""

    def __init__(self, answer: httpx2.Response) -> None:
        body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        super().__init__(f"{answer.request.method} {answer.request.url}: {body.get('detail') or answer.text[:300]}")
        self.status = answer.status_code
        self.body = body


class Away(ConnectionError):
    """A service does not answer, however long it is waited for."""

    def __init__(self, app_id: str) -> None:
        super().__init__(f"{app_id} does not answer; `halfsure logs {app_id}` may say why")


class Rest:
    """Calls by app id; a POST carries an Idempotency-Key, so that trying again is harmless."""

    def __init__(self, url: Callable[[str], str], token: str, project: str) -> None:
        self._url = url
        self._project = project
        self._http = httpx2.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=httpx2.Timeout(60, connect=2), trust_env=False
        )
        self.retries = 0

    async def get(self, app_id: str, path: str, **params: Any) -> Any:
        return await self.call("GET", app_id, path, params=params)

    async def everything(self, app_id: str, path: str, **params: Any) -> list[dict[str, Any]]:
        """All pages of a list."""
        rows: list[dict[str, Any]] = []
        query = {"limit": PAGE, **params}
        while True:
            page = await self.get(app_id, path, **query)
            rows += page["items"]
            if not page["cursor"]:
                return rows
            query["cursor"] = page["cursor"]

    async def post(self, app_id: str, path: str, **kwargs: Any) -> Any:
        headers = {"idempotency-key": uuid.uuid4().hex, **kwargs.pop("headers", {})}
        return await self.call("POST", app_id, path, headers=headers, **kwargs)

    async def call(self, method: str, app_id: str, path: str, **kwargs: Any) -> Any:
        """The JSON of a 2xx answer, None for a 204. Raises Refused for a 4xx, and for a 5xx that stays."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        kwargs["params"] = {"project": self._project, **kwargs.get("params", {})}
        while True:
            try:
                answer = await self._http.request(method, self._url(app_id) + path, **kwargs)
                if answer.status_code < 500:
                    break
            except httpx2.TransportError:
                answer = None
            self.retries += 1
            if asyncio.get_running_loop().time() > deadline:
                if answer is None:
                    raise Away(app_id)
                break
            await asyncio.sleep(0.2)
        if answer.status_code == 204:
            return None
        if answer.status_code >= 400:
            raise Refused(answer)
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    @contextlib.asynccontextmanager
    async def stream(self, app_id: str, path: str, **params: Any) -> AsyncIterator[httpx2.Response]:
        """The answer to a GET while it comes; it is not tried again. Raises Refused for what is no 2xx, and Away."""
        query = {"project": self._project, **params}
        try:
            async with self._http.stream("GET", self._url(app_id) + path, params=query) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    raise Refused(answer)
                yield answer
        except httpx2.TransportError as error:
            raise Away(app_id) from error

    async def close(self) -> None:
        await self._http.aclose()
