"""A stand-in for the part of Kubernetes that training needs: Jobs over HTTPS, whose pods are processes here.

Its Jobs run what they are told, for real, and are tried again as often as they say. It knows no other container than
the template's, restarts at once, and forgets everything when it ends. tests/k8s has the real thing.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from jsonschema import Draft202012Validator
from loopback import self_signed
from sources.processes import free_port

from services.cli.commands.k8s import SCHEMAS
from services.cli.settings import default_root

TOKEN = "a-token-of-the-cluster"
NAMESPACE = "halfsure"


class Jobs:
    """What the API server and the Job controller do, and what has been asked of them."""

    def __init__(self, template: dict[str, Any] | None) -> None:
        self.template = template
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[str] = []
        self.refused = 0
        self.watched = 0
        self.forbidden = False
        self.pods: dict[str, asyncio.subprocess.Process] = {}
        self._said: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        self._version = 0
        known = json.loads((default_root() / SCHEMAS).read_text())
        self._schema = Draft202012Validator({"$defs": known["$defs"], **known["kinds"]["batch/v1 Job"]})

    async def create(self, job: dict[str, Any]) -> dict[str, Any]:
        if wrong := [error.message for error in self._schema.iter_errors(job)]:
            raise HTTPException(422, wrong[0])
        name = job["metadata"]["name"]
        if name in self.jobs:
            self.refused += 1
            raise HTTPException(409, f"jobs.batch {name!r} already exists")
        self.jobs[name] = {**job, "status": {}}
        self.created.append(name)
        await self._touch(name)
        self._tasks[name] = asyncio.create_task(self._work(name))
        return self.jobs[name]

    async def delete(self, name: str) -> None:
        if name not in self.jobs:
            raise HTTPException(404, f"jobs.batch {name!r} not found")
        del self.jobs[name]
        self._tasks.pop(name).cancel()
        async with self._changed:
            self._changed.notify_all()

    def kill_pod(self, name: str) -> None:
        os.killpg(self.pods[name].pid, signal.SIGKILL)

    def log(self, name: str) -> str:
        return self._said.get(name, "")

    async def watch(self, name: str, version: int, seconds: float) -> AsyncIterator[bytes]:
        """Events about one Job that are newer than a version, as lines, until the time is up."""
        self.watched += 1
        deadline = asyncio.get_running_loop().time() + seconds
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            job = self.jobs.get(name)
            if job is None:
                yield json.dumps({"type": "DELETED", "object": {}}).encode() + b"\n"
                return
            if int(job["metadata"]["resourceVersion"]) > version:
                version = int(job["metadata"]["resourceVersion"])
                yield json.dumps({"type": "MODIFIED", "object": job}).encode() + b"\n"
            async with self._changed:
                try:
                    await asyncio.wait_for(self._changed.wait(), left)
                except TimeoutError:
                    return

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _work(self, name: str) -> None:
        """One pod after another, until one ends well or there were too many."""
        spec = self.jobs[name]["spec"]
        [container] = spec["template"]["spec"]["containers"]
        environment = {**os.environ, **{each["name"]: each["value"] for each in container["env"]}}
        for failures in range(spec["backoffLimit"] + 1):
            self.pods[name] = pod = await asyncio.create_subprocess_exec(
                *(sys.executable, *container["command"][1:], *container["args"]),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._said[name] = (await pod.communicate())[0].decode()
            finally:
                if pod.returncode is None:
                    os.killpg(pod.pid, signal.SIGKILL)
                    await asyncio.shield(pod.wait())
            if pod.returncode == 0:
                await self._end(name, {"succeeded": 1, "failed": failures}, {"type": "Complete"})
                return
            self.jobs[name]["status"] = {"failed": failures + 1}
            await self._touch(name)
        why = {"type": "Failed", "reason": "BackoffLimitExceeded", "message": "Job has reached its backoff limit"}
        await self._end(name, self.jobs[name]["status"], why)

    async def _end(self, name: str, counts: dict[str, int], condition: dict[str, str]) -> None:
        self.jobs[name]["status"] = {**counts, "conditions": [{**condition, "status": "True"}]}
        await self._touch(name)

    async def _touch(self, name: str) -> None:
        self._version += 1
        self.jobs[name]["metadata"]["resourceVersion"] = str(self._version)
        async with self._changed:
            self._changed.notify_all()


def api(jobs: Jobs) -> FastAPI:
    app = FastAPI()
    base = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    core = f"/api/v1/namespaces/{NAMESPACE}"

    @app.exception_handler(HTTPException)
    async def status(_: Request, error: HTTPException) -> Response:
        body = {"kind": "Status", "code": error.status_code, "message": error.detail}
        return Response(json.dumps(body), error.status_code, media_type="application/json")

    @app.middleware("http")
    async def known(request: Request, go: Any) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response('{"message": "Unauthorized"}', 401)
        return Response('{"message": "forbidden"}', 403) if jobs.forbidden else await go(request)

    @app.post(base)
    async def create(request: Request) -> Any:
        return await jobs.create(await request.json())

    @app.get(base)
    async def watch(fieldSelector: str, resourceVersion: int, timeoutSeconds: float) -> Response:
        name = fieldSelector.removeprefix("metadata.name=")
        return StreamingResponse(jobs.watch(name, resourceVersion, timeoutSeconds), media_type="application/json")

    @app.get(base + "/{name}")
    async def get(name: str) -> Any:
        if name not in jobs.jobs:
            raise HTTPException(404, f"jobs.batch {name!r} not found")
        return jobs.jobs[name]

    @app.delete(base + "/{name}")
    async def delete(name: str) -> Any:
        await jobs.delete(name)
        return {}

    @app.get(core + "/podtemplates/{name}")
    async def template(name: str) -> Any:
        if jobs.template is None:
            raise HTTPException(404, f"podtemplates {name!r} not found")
        return {"metadata": {"name": name}, "template": jobs.template}

    @app.get(core + "/pods")
    async def pods(labelSelector: str) -> Any:
        name = labelSelector.partition("=")[2]
        metadata = {"name": f"{name}-x", "creationTimestamp": "2026-01-01T00:00:00Z"}
        return {"items": [{"metadata": metadata}] if name in jobs.pods else []}

    @app.get(core + "/pods/{name}/log")
    async def log(name: str) -> Response:
        return Response(jobs.log(name.removesuffix("-x")), media_type="text/plain")

    return app


@asynccontextmanager
async def serving(folder: Path, template: dict[str, Any] | None) -> AsyncIterator[tuple[Jobs, dict[str, str]]]:
    """The Jobs, and the environment by which a pod finds them."""
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(NAMESPACE)
    self_signed(account / "ca.crt", account / "tls.key")
    jobs, port = Jobs(template), free_port()
    options = {"ssl_certfile": str(account / "ca.crt"), "ssl_keyfile": str(account / "tls.key")}
    server = uvicorn.Server(uvicorn.Config(api(jobs), port=port, log_level="error", **options))  # type: ignore[arg-type]
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield (
            jobs,
            {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(port),
                "HALFSURE_SERVICE_ACCOUNT": str(account),
            },
        )
    finally:
        await jobs.close()
        server.should_exit = server.force_exit = True
        await running
