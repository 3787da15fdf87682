"""Label Studio for tests: its real server where it is installed, and a stand-in that knows what the connector uses."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from conftest import wait_until
from fastapi import FastAPI, HTTPException, Request, Response
from sources.processes import free_port

TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL, PASSWORD = "anna@example.org", "a long password"
HEADERS = {"authorization": f"Token {TOKEN}"}
# Nothing of it calls out, and it may call this machine.
QUIET = {
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SSRF_PROTECTION_ENABLED": "false",
}


@contextlib.contextmanager
def real(venv: Path, folder: Path) -> Iterator[str]:
    """The server of a virtual environment that has `label-studio` in it, on a new database: its address."""
    port, log = free_port(), folder / "label-studio.log"
    account = ("--username", EMAIL, "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token")
    command = (venv / "bin" / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1", "-p", str(port))
    # What it is in a browser does not matter; its home is where it would keep a key.
    env = {**os.environ, **QUIET, "HOME": str(folder), "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    with log.open("wb") as lines:
        process = subprocess.Popen((*command, *account), env=env, cwd=folder, stdout=lines, stderr=lines)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def until_up(url: str) -> None:
    """The real server makes its database first, which takes a minute."""
    async with httpx2.AsyncClient(trust_env=False) as http:

        async def answers() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                return (await http.get(f"{url}/health", timeout=5)).is_success
            return False

        await wait_until(answers, 400)


class StandIn:
    """Not Label Studio: as much of its API as the connector uses, in memory, and its webhooks."""

    def __init__(self) -> None:
        self._ids = count(1)
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.uploads: dict[int, tuple[str, bytes]] = {}
        self.hooks: dict[int, dict[str, Any]] = {}
        self.http = httpx2.AsyncClient(trust_env=False)

    def api(self) -> FastAPI:
        app = FastAPI()
        routes = {
            "GET /api/projects/": self.listed,
            "POST /api/projects/": self.project,
            "PATCH /api/projects/{number}/": self.patched,
            "GET /api/projects/{number}/next": self.next,
            "POST /api/projects/{number}/import": self.imported,
            "DELETE /api/projects/{number}/file-uploads": self.dropped,
            "GET /api/import/file-upload/{number}": self.stored,
            "GET /data/upload/{name}": self.content,
            "GET /api/tasks": self.page,
            "GET /api/tasks/{number}/": self.task,
            "DELETE /api/tasks/{number}/": self.removed,
            "POST /api/tasks/{number}/annotations/": self.annotated,
            "PATCH /api/annotations/{number}/": self.updated,
            "DELETE /api/annotations/{number}/": self.deleted,
            "POST /api/predictions/": self.predicted,
            "DELETE /api/predictions/{number}/": self.unpredicted,
            "GET /api/users/": self.users,
            "GET /api/webhooks/": self.hooked,
            "GET /api/webhooks/info/": self.known,
            "POST /api/webhooks/": self.hook,
            "DELETE /api/webhooks/{number}/": self.unhook,
        }
        for route, work in routes.items():
            method, path = route.split()
            app.add_api_route(path, work, methods=[method], response_model=None)
        return app

    async def listed(self) -> Any:
        return {"count": len(self.projects), "results": list(self.projects.values())}

    async def project(self, request: Request) -> Any:
        number = next(self._ids)
        self.projects[number] = {"id": number, **await request.json()}
        return self.projects[number]

    async def patched(self, number: int, request: Request) -> Any:
        self.projects[number] |= await request.json()
        return self.projects[number]

    async def next(self, number: int) -> Any:
        waiting = [task for task in self.tasks.values() if not task["annotations"]]
        return min(waiting, key=lambda task: min(one["score"] for one in task["predictions"]))

    async def imported(self, number: int, request: Request) -> Any:
        if request.query_params.get("commit_to_project") == "false":
            upload, name = next(self._ids), (await request.form())["file"]
            assert not isinstance(name, str)
            self.uploads[upload] = (f"{upload}-{name.filename}", await name.read())
            return {"file_upload_ids": [upload]}
        for row in await request.json():
            task = next(self._ids)
            made = [{"id": next(self._ids), **one} for one in row["predictions"]]
            self.tasks[task] = {"id": task, "annotations": [], **row, "predictions": made}
        return {}

    async def dropped(self, number: int, request: Request) -> Response:
        for upload in (await request.json())["file_upload_ids"]:
            self.uploads.pop(upload, None)
        return Response(status_code=200)

    async def stored(self, number: int) -> Any:
        return {"id": number, "file": f"upload/{self.uploads[number][0]}"}

    async def content(self, name: str) -> Response:
        found = [content for known, content in self.uploads.values() if known == name]
        return Response(found[0], media_type="image/png") if found else Response(status_code=404)

    async def page(self, page: int, page_size: int) -> Any:
        rows = list(self.tasks.values())[(page - 1) * page_size : page * page_size]
        return {"total": len(self.tasks), "tasks": rows}

    async def task(self, number: int) -> Any:
        return self._found(self.tasks, number)

    async def removed(self, number: int) -> Response:
        self._found(self.tasks, number)
        del self.tasks[number]
        return Response(status_code=204)

    async def annotated(self, number: int, request: Request) -> Any:
        one = {"id": next(self._ids), "completed_by": 1, "task": number, **await request.json(), "updated_at": _now()}
        self.tasks[number]["annotations"].append(one)
        await self._tell("ANNOTATION_CREATED", annotation=one, task=self.tasks[number])
        return one

    async def updated(self, number: int, request: Request) -> Any:
        task, one = self._annotation(number)
        one |= {**await request.json(), "updated_at": _now()}
        await self._tell("ANNOTATION_UPDATED", annotation=one, task=task)
        return one

    async def deleted(self, number: int) -> Response:
        task, one = self._annotation(number)
        task["annotations"].remove(one)
        await self._tell("ANNOTATIONS_DELETED", annotations=[{"id": number}])
        return Response(status_code=204)

    async def predicted(self, request: Request) -> Any:
        one = {"id": next(self._ids), **await request.json()}
        self.tasks[one["task"]]["predictions"].append(one)
        return one

    async def unpredicted(self, number: int) -> Response:
        for task in self.tasks.values():
            task["predictions"] = [one for one in task["predictions"] if one["id"] != number]
        return Response(status_code=204)

    async def users(self) -> Any:
        return [{"id": 1, "email": EMAIL}]

    async def hooked(self) -> Any:
        return list(self.hooks.values())

    async def known(self) -> Any:
        return {name: {} for name in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")}

    async def hook(self, request: Request) -> Any:
        number = next(self._ids)
        self.hooks[number] = {"id": number, **await request.json()}
        return self.hooks[number]

    async def unhook(self, number: int) -> Response:
        self._found(self.hooks, number)
        del self.hooks[number]
        return Response(status_code=204)

    async def _tell(self, action: str, **payload: Any) -> None:
        for hook in self.hooks.values():
            if action in hook["actions"]:
                with contextlib.suppress(httpx2.HTTPError):  # as the real one does
                    await self.http.post(hook["url"], json={"action": action, **payload}, headers=hook["headers"])

    def _annotation(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        pairs = [(task, one) for task in self.tasks.values() for one in task["annotations"] if one["id"] == number]
        if not pairs:
            raise HTTPException(404)
        return pairs[0]

    @staticmethod
    def _found(rows: dict[int, Any], number: int) -> Any:
        if number not in rows:
            raise HTTPException(404)
        return rows[number]


def _now() -> str:
    return datetime.now(UTC).isoformat()


@contextlib.asynccontextmanager
async def standing_in() -> AsyncIterator[str]:
    """The address of a stand-in."""
    studio, port = StandIn(), free_port()
    server = uvicorn.Server(uvicorn.Config(studio.api(), port=port, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving
    await studio.http.aclose()


class People:
    """Those who label over there, by the API that the editor uses, and what they see."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=30, trust_env=False)

    async def call(self, method: str, path: str, **kwargs: Any) -> Any:
        answer = await self.http.request(method, path, **kwargs)
        assert answer.is_success, answer.text
        return answer.json() if answer.content and "json" in answer.headers["content-type"] else answer.content

    async def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        """By our sample's id."""
        query = {"project": project, "page": 1, "page_size": 100, "fields": "all"}
        return {row["data"]["sample_id"]: row for row in (await self.call("GET", "/api/tasks", params=query))["tasks"]}

    async def annotate(self, task: int, value: str | None, seconds: float = 2.5) -> int:
        body = {"result": choice(value), "lead_time": seconds, "was_cancelled": value is None}
        return (await self.call("POST", f"/api/tasks/{task}/annotations/", json=body))["id"]

    async def change(self, annotation: int, value: str) -> None:
        await self.call("PATCH", f"/api/annotations/{annotation}/", json={"result": choice(value)})

    async def delete(self, annotation: int) -> None:
        await self.call("DELETE", f"/api/annotations/{annotation}/")


def choice(value: str | None) -> list[dict[str, Any]]:
    if value is None:
        return []
    return [{"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": [value]}}]
