"""MLflow for tests: a stand-in that keeps what it is told in memory, and the real server of another environment.

The stand-in has the routes that services/retrain_trigger/mlflow.py uses, and those that a test looks by. What is asked
of it without faults is asked of the real server too, where HALFSURE_MLFLOW_VENV names an environment with one.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from sources.processes import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class StandIn:
    """Experiments, runs, artefacts, versions, aliases. `lose`: the requests that have their effect and no answer."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.artefacts: dict[str, bytes] = {}
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.requests = 0
        self.lose: set[int] = set()
        self.away = False

    def app(self) -> Starlette:
        api = Route("/api/2.0/mlflow/{path:path}", self._api, methods=["GET", "POST", "DELETE"])
        files = Route("/api/2.0/mlflow-artifacts/artifacts/{path:path}", self._file, methods=["GET", "PUT"])
        return Starlette(routes=[api, files])

    async def _api(self, request: Request) -> Response:
        told = dict(request.query_params) if request.method == "GET" else await request.json()
        name = re.sub(r"\W", "_", request.path_params["path"]) + ("_" + request.method.lower())
        return self._answered(getattr(self, name)(told))

    async def _file(self, request: Request) -> Response:
        path = request.path_params["path"]
        if request.method == "GET":
            return Response(self.artefacts[path])
        self.artefacts[path] = await request.body()
        return self._answered({})

    def _answered(self, body: dict[str, Any] | None) -> Response:
        self.requests += 1
        if self.away or self.requests in self.lose:
            return JSONResponse({"error_code": "TEMPORARILY_UNAVAILABLE"}, 503)
        if body is None:
            return JSONResponse({"error_code": "RESOURCE_DOES_NOT_EXIST"}, 404)
        return JSONResponse(body)

    def experiments_get_by_name_get(self, told: dict[str, Any]) -> Any:
        found = self.experiments.get(told["experiment_name"])
        return found and {"experiment": {"experiment_id": found}}

    def experiments_create_post(self, told: dict[str, Any]) -> Any:
        self.experiments[told["name"]] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[told["name"]]}

    def runs_search_post(self, told: dict[str, Any]) -> Any:
        wanted = re.fullmatch(r"tags\.`(.+)` = '(.+)'", told["filter"])
        assert wanted is not None, told
        pair = {"key": wanted[1], "value": wanted[2]}
        mine = [one for one in self.runs.values() if one["info"]["experiment_id"] in told["experiment_ids"]]
        found = [one for one in mine if pair in one["data"]["tags"]]
        return {"runs": found[: told.get("max_results", 1000)]} if found else {}

    def runs_create_post(self, told: dict[str, Any]) -> Any:
        run = uuid.uuid4().hex
        uri = f"mlflow-artifacts:/{told['experiment_id']}/{run}/artifacts"
        info = {"run_id": run, "experiment_id": told["experiment_id"], "status": "RUNNING", "artifact_uri": uri}
        self.runs[run] = {"info": info, "data": {"tags": told["tags"], "params": [], "metrics": []}}
        return {"run": self.runs[run]}

    def runs_log_batch_post(self, told: dict[str, Any]) -> Any:
        data = self.runs[told["run_id"]]["data"]
        data["params"] = told["params"]
        data["metrics"] = told["metrics"]
        return {}

    def runs_update_post(self, told: dict[str, Any]) -> Any:
        self.runs[told["run_id"]]["info"]["status"] = told["status"]
        return {}

    def runs_get_get(self, told: dict[str, Any]) -> Any:
        return {"run": self.runs[told["run_id"]]}

    def registered_models_get_get(self, told: dict[str, Any]) -> Any:
        return {"registered_model": {"name": told["name"]}} if told["name"] in self.models else None

    def registered_models_create_post(self, told: dict[str, Any]) -> Any:
        self.models[told["name"]] = []
        return {}

    def model_versions_search_get(self, told: dict[str, Any]) -> Any:
        rows = [row for rows in self.models.values() for row in rows]
        wanted = re.fullmatch(r"(run_id|name)='(.+)'", told["filter"])
        assert wanted is not None, told
        return {"model_versions": [row for row in rows if row[wanted[1]] == wanted[2]]}

    def model_versions_create_post(self, told: dict[str, Any]) -> Any:
        row = {**told, "version": str(len(self.models[told["name"]]) + 1)}
        self.models[told["name"]].append(row)
        return {"model_version": row}

    def model_versions_set_tag_post(self, told: dict[str, Any]) -> Any:
        row = self.models[told["name"]][int(told["version"]) - 1]
        row["tags"] = [tag for tag in row["tags"] if tag["key"] != told["key"]]
        row["tags"].append({"key": told["key"], "value": told["value"]})
        return {}

    def registered_models_alias_post(self, told: dict[str, Any]) -> Any:
        self.aliases[told["name"], told["alias"]] = told["version"]
        return {}

    def registered_models_alias_delete(self, told: dict[str, Any]) -> Any:
        self.aliases.pop((told["name"], told["alias"]), None)
        return {}

    def registered_models_alias_get(self, told: dict[str, Any]) -> Any:
        number = self.aliases.get((told["name"], told["alias"]))
        return number and {"model_version": self.models[told["name"]][int(number) - 1]}


@contextlib.asynccontextmanager
async def standing_in() -> AsyncIterator[tuple[StandIn, str]]:
    made, port = StandIn(), free_port()
    server = uvicorn.Server(uvicorn.Config(made.app(), port=port, log_level="error"))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield made, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        await running


@contextlib.asynccontextmanager
async def real(venv: Path, folder: Path) -> AsyncIterator[str]:
    """`mlflow server` on a SQLite file and a folder; its url."""
    port = free_port()
    command = [venv / "bin" / "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "artefacts"]
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = _started([str(part) for part in (*command, *stores)], environment, folder)
    try:
        await _answers(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _started(command: list[str], environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "mlflow.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)


async def _answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(900):
            assert process.poll() is None, "MLflow has ended; see mlflow.log"
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get("/health")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("MLflow does not come up; see mlflow.log")
