"""Label Studio's REST API, as far as the connector needs it: https://api.labelstud.io."""

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx2

from services.contracts.label_studio import config

PAGE = 200
# Singular and plural, of all versions; each server is asked which it knows.
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_UPDATED",
    "ANNOTATION_DELETED",
    "ANNOTATIONS_DELETED",
)


class StudioRefused(Exception):
    """Label Studio does not do what it is asked; the message says what it answered."""


class Studio:
    """A server, and a token for it: a legacy one, or a personal access token."""

    def __init__(self, url: str, token: str) -> None:
        self._token = token
        self._access: str | None = None
        self._http = httpx2.AsyncClient(base_url=url.rstrip("/"), timeout=60, trust_env=False)

    async def project(self, title: str, labels: Sequence[str]) -> int:
        """The project of this title, made if there is none, that asks for these labels and the least certain first."""
        wanted = {"label_config": config(labels), "sampling": "Uncertainty sampling"}
        async for row in self._pages("/api/projects/", "results"):
            if row["title"] == title:
                changed = {name: value for name, value in wanted.items() if row.get(name) != value}
                if changed:
                    await self.call("PATCH", f"/api/projects/{row['id']}/", json=changed)
                return row["id"]
        return (await self.call("POST", "/api/projects/", json={"title": title, **wanted}))["id"]

    async def tune(self, project: int, **fields: Any) -> None:
        await self.call("PATCH", f"/api/projects/{project}/", json=fields)

    async def tasks(self, project: int) -> AsyncIterator[dict[str, Any]]:
        """All tasks, with annotations and predictions."""
        async for row in self._pages("/api/tasks", "tasks", project=project, fields="all"):
            yield row

    async def task(self, number: int) -> dict[str, Any] | None:
        try:
            return await self.call("GET", f"/api/tasks/{number}/")
        except StudioRefused as error:
            if " 404" in str(error):
                return None
            raise

    async def upload(self, project: int, name: str, content: bytes, media: str) -> dict[str, Any]:
        """Store a picture with them: where it is, and the number to delete it by."""
        files = {"file": (name, content, media)}
        path = f"/api/projects/{project}/import?commit_to_project=false"
        (number,) = (await self.call("POST", path, files=files))["file_upload_ids"]
        stored = await self.call("GET", f"/api/import/file-upload/{number}")
        return {"image": f"/data/{stored['file']}", "upload": number}

    async def add(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        await self.call("POST", f"/api/projects/{project}/import", json=list(tasks))

    async def remove(self, project: int, task: Mapping[str, Any]) -> None:
        """Delete a task and its picture; what is gone already is no trouble."""
        await self.call("DELETE", f"/api/tasks/{task['id']}/", gone_is_fine=True)
        if number := task["data"].get("upload"):
            body = {"file_upload_ids": [number]}
            await self.call("DELETE", f"/api/projects/{project}/file-uploads", json=body, gone_is_fine=True)

    async def predict(self, task: Mapping[str, Any], prediction: Mapping[str, Any]) -> None:
        """The one prediction of a task from now on."""
        await self.call("POST", "/api/predictions/", json={"task": task["id"], **prediction})
        for old in task["predictions"]:
            await self.call("DELETE", f"/api/predictions/{old['id']}/", gone_is_fine=True)

    async def people(self) -> dict[int, str]:
        rows = await self.call("GET", "/api/users/")
        return {row["id"]: row["email"] for row in rows}

    async def hook(self, project: int, url: str, secret: str) -> int:
        """Have them tell this address of annotations, with this secret; those to the same address are replaced."""
        for row in await self.call("GET", f"/api/webhooks/?project={project}"):
            if row["url"] == url:
                await self.unhook(row["id"])
        known = await self.call("GET", "/api/webhooks/info/")
        body = {
            "project": project,
            "url": url,
            "headers": {"Authorization": f"Bearer {secret}"},
            "actions": [name for name in ACTIONS if name in known],
            "send_for_all_actions": False,
            "send_payload": True,
        }
        return (await self.call("POST", "/api/webhooks/", json=body))["id"]

    async def unhook(self, number: int) -> None:
        await self.call("DELETE", f"/api/webhooks/{number}/", gone_is_fine=True)

    async def call(self, method: str, path: str, *, gone_is_fine: bool = False, **kwargs: Any) -> Any:
        """The JSON of a 2xx answer. Raises StudioRefused."""
        answer = await self._send(method, path, kwargs)
        if answer.status_code == 401 and _is_refresh(self._token):
            self._access = None
            answer = await self._send(method, path, kwargs)
        if answer.status_code == 404 and gone_is_fine:
            return None
        if not answer.is_success:
            raise StudioRefused(f"Label Studio answered {answer.status_code} to {method} {path}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, path: str, kwargs: Mapping[str, Any]) -> httpx2.Response:
        try:
            headers = {"authorization": await self._authorization()}
            return await self._http.request(method, path, headers=headers, **kwargs)
        except httpx2.HTTPError as error:
            raise StudioRefused(f"Label Studio does not answer at {self._http.base_url}: {error!r}") from error

    async def _authorization(self) -> str:
        if not _is_refresh(self._token):
            return f"Token {self._token}"
        if self._access is None:
            answer = await self._http.post("/api/token/refresh", json={"refresh": self._token})
            if not answer.is_success:
                raise StudioRefused(f"Label Studio does not take the token: {answer.text[:300]}")
            self._access = answer.json()["access"]
        return f"Bearer {self._access}"

    async def _pages(self, path: str, rows: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        seen, number = 0, 1
        while True:
            page = await self.call("GET", path, params={**query, "page": number, "page_size": PAGE})
            for row in page[rows]:
                yield row
            seen += len(page[rows])
            if not page[rows] or seen >= page.get("total", page.get("count", 0)):
                return
            number += 1


def _is_refresh(token: str) -> bool:
    """Whether it is a personal access token, a JWT that access tokens are got with."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("token_type") == "refresh"
