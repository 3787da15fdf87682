"""The cluster's own API, as a pod sees it: the few calls that training Jobs need."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import orjson
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.retrain_trigger.backends import JobRefused
from services.runtime.errors import Unavailable

JOBS = "apis/batch/v1"
CORE = "api/v1"
Object = dict[str, Any]


class ClusterSettings(BaseSettings):
    """Where the API is and who this pod is; Kubernetes gives every pod the first two."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    host: str = Field(default="kubernetes.default.svc", validation_alias="KUBERNETES_SERVICE_HOST")
    port: int = Field(default=443, validation_alias="KUBERNETES_SERVICE_PORT")
    account: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        validation_alias="HALFSURE_SERVICE_ACCOUNT",
        description="folder with token, ca.crt and namespace",
    )

    @property
    def url(self) -> str:
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Cluster:
    """Jobs, the template of their pods, and what the pods said, in this pod's own namespace.

    Whatever may be different later, a role that is not bound yet included, raises Unavailable.
    """

    def __init__(self, settings: ClusterSettings | None = None) -> None:
        self._settings = settings or ClusterSettings()
        self._client: httpx2.AsyncClient | None = None

    async def create(self, job: Object) -> bool:
        """False: there is one of this name already. Raises JobRefused and Unavailable."""
        answer = await self._call("POST", JOBS, "jobs", content=orjson.dumps(job))
        if answer.status_code in (400, 422):
            raise JobRefused(_message(answer))
        return answer.status_code != 409

    async def job(self, name: str) -> Object | None:
        return await self._get(JOBS, f"jobs/{name}")

    async def template(self, name: str) -> Object | None:
        return await self._get(CORE, f"podtemplates/{name}")

    async def wait(self, name: str, over: Callable[[Object], bool], seconds: float) -> Object | None:
        """The Job once it is over, or as it stands after `seconds`; None: there is none, or none any more."""
        job = await self.job(name)
        if job is None or over(job) or seconds < 1:
            return job
        params = {
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": job["metadata"]["resourceVersion"],
            "watch": "true",
            "timeoutSeconds": str(int(seconds)),
        }
        try:
            async with self._http.stream(
                "GET", self._url(JOBS, "jobs"), params=params, headers=self._headers(), timeout=seconds + 10
            ) as events:
                if events.status_code != 200:
                    return job
                async for line in events.aiter_lines():
                    event: Object = orjson.loads(line)
                    if event["type"] == "DELETED":
                        return None
                    if event["type"] == "ERROR":  # too old a version: the next look is a fresh one
                        break
                    if event["type"] == "MODIFIED" and over(event["object"]):
                        return event["object"]
        except (httpx2.HTTPError, orjson.JSONDecodeError):
            pass  # a watch may end at any time; whoever waits asks again
        return await self.job(name)

    async def delete(self, name: str) -> None:
        """Remove a Job and its pods; one that is not there is left alone."""
        await self._call("DELETE", JOBS, f"jobs/{name}", params={"propagationPolicy": "Background"})

    async def said(self, job: str, lines: int) -> str:
        """The last lines of the last pod of a Job; empty when nothing is left of it."""
        found = await self._get(CORE, "pods", {"labelSelector": f"batch.kubernetes.io/job-name={job}"}) or {}
        pods = sorted(found.get("items", ()), key=lambda pod: pod["metadata"]["creationTimestamp"])
        if not pods:
            return ""
        path = f"pods/{pods[-1]['metadata']['name']}/log"
        answer = await self._call("GET", CORE, path, params={"tailLines": str(lines)})
        return answer.text if answer.status_code == 200 else ""

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _get(self, api: str, path: str, params: Mapping[str, str] | None = None) -> Object | None:
        answer = await self._call("GET", api, path, params=params)
        return None if answer.status_code == 404 else orjson.loads(answer.content)

    async def _call(self, method: str, api: str, path: str, **more: Any) -> httpx2.Response:
        try:
            answer = await self._http.request(method, self._url(api, path), headers=self._headers(), **more)
        except (httpx2.HTTPError, OSError) as error:
            raise Unavailable(f"the cluster's API: {error!r}") from error
        if answer.status_code in (401, 403, 429) or answer.status_code >= 500:
            raise Unavailable(f"the cluster's API: {answer.status_code} {_message(answer)}")
        return answer

    def _url(self, api: str, path: str) -> str:
        namespace = (self._settings.account / "namespace").read_text().strip()
        return f"{self._settings.url}/{api}/namespaces/{namespace}/{path}"

    def _headers(self) -> dict[str, str]:
        # The token is replaced every hour; it is read from memory, so each call may.
        token = (self._settings.account / "token").read_text().strip()
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    @property
    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            trusted = ssl.create_default_context(cafile=str(self._settings.account / "ca.crt"))
            self._client = httpx2.AsyncClient(verify=trusted, timeout=20, trust_env=False)
        return self._client


def _message(answer: httpx2.Response) -> str:
    """What a Status object says."""
    try:
        return str(orjson.loads(answer.content).get("message"))[:500]
    except (orjson.JSONDecodeError, AttributeError):
        return answer.text[:200]
