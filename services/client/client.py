"""The client itself: one origin, one token, and a part for each service with a method for each route."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx2

from services.client import routes


class Refused(Exception):
    """A service has answered with a problem: `status`, and `problem` as RFC 9457 has it."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.status = answer.status_code
        self.problem: dict[str, Any] = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        what = self.problem.get("detail") or answer.text[:300]
        super().__init__(f"{answer.request.method} {answer.request.url}: {self.status} {what}")


class Client:
    """All services behind one address, as the portal and every ingress serve them (`/api/APP-ID/v1/...`).

    `project` is what a call is about that names none. Parts: `ingest`, `infer`, `select_uncertain`, `label_queue`,
    `retrain_trigger`, `uplink`, `portal`.
    """

    def __init__(self, url: str, token: str, project: str | None = None, *, http: httpx2.Client | None = None) -> None:
        self._http = http or httpx2.Client(timeout=60.0)
        self._url, self._project = url.rstrip("/"), project
        self._headers = {"authorization": f"Bearer {token}"}
        self.ingest = routes.Ingest(self)
        self.infer = routes.Infer(self)
        self.select_uncertain = routes.SelectUncertain(self)
        self.label_queue = routes.LabelQueue(self)
        self.retrain_trigger = routes.RetrainTrigger(self)
        self.uplink = routes.Uplink(self)
        self.portal = routes.Portal(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, app_id: str, path: str, **given: Any) -> Any:
        """The JSON of an answer, its bytes where it is none, None where it is empty. Raises Refused for 4xx and 5xx.

        A POST carries an Idempotency-Key, so that `call` may be tried again. `params`, `headers`, `json` and `content`
        as httpx has them; what is None is left out.
        """
        headers = {**self._headers, **({"idempotency-key": uuid.uuid4().hex} if method == "POST" else {})}
        headers |= _some(given.pop("headers", {}))
        params = _some({"project": self._project} | _some(given.pop("params", {})))
        address = self._address(app_id) + path
        answer = self._http.request(method, address, params=params, headers=headers, **_some(given))
        if answer.status_code >= 400:
            raise Refused(answer)
        if not answer.content:
            return None
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.content

    @contextmanager
    def stream(self, app_id: str, path: str, **params: Any) -> Iterator[Iterator[str]]:
        """The lines of an answer while they come. Raises Refused."""
        query = _some({"project": self._project} | _some(params))
        address = self._address(app_id) + path
        with self._http.stream("GET", address, params=query, headers=self._headers, timeout=None) as answer:
            if answer.status_code >= 400:
                answer.read()
                raise Refused(answer)
            yield answer.iter_lines()

    def _address(self, app_id: str) -> str:
        return self._url if app_id == "portal" else f"{self._url}/api/{app_id}"


def _some(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
