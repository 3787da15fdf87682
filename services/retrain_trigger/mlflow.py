"""The part of MLflow's REST API that is needed here (api 2.0, as of MLflow 3): Azure ML has it too.

Nothing of MLflow is imported: its client has 87 packages. What is made is looked for first, so that asking again after
a crash makes nothing twice; only two askers at once could.
"""

from collections.abc import Mapping
from typing import Any

import httpx2

from services.runtime.errors import Unavailable

API = "/api/2.0/mlflow/"
PROXY = "mlflow-artifacts:/"
VERSION_TAG = "halfsure.version"
LONGEST = 5000  # characters of a tag or a parameter
REFUSALS = (400, 413, 422)


class Refused(Exception):
    """MLflow will never take this."""


class Mlflow:
    """One tracking server; `client` has its address and whatever it wants to see of the caller."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def experiment(self, name: str) -> str:
        """Its id, made if it is not there."""
        found = await self._found("experiments/get-by-name", experiment_name=name)
        if found is None:
            return (await self._call("POST", "experiments/create", json={"name": name}))["experiment_id"]
        return found["experiment"]["experiment_id"]

    async def run(self, experiment: str, version: str, at: int, tags: Mapping[str, str]) -> dict[str, Any]:
        """`info` of the run that a model version has, made if it is not there; `at` in ms since 1970."""
        wanted = {"experiment_ids": [experiment], "filter": f"tags.`{VERSION_TAG}` = '{version}'", "max_results": 1}
        found = (await self._call("POST", "runs/search", json=wanted)).get("runs")
        if found:
            return found[0]["info"]
        body = {"experiment_id": experiment, "run_name": version, "start_time": at}
        body["tags"] = _pairs({**tags, VERSION_TAG: version})
        return (await self._call("POST", "runs/create", json=body))["run"]["info"]

    async def look(self, run: str) -> dict[str, Any] | None:
        """`data` of a run: {tags, metrics, params}, each by key; None: there is no such run."""
        found = await self._found("runs/get", run_id=run)
        data = found["run"]["data"] if found else None
        return data and {part: {row["key"]: row["value"] for row in rows} for part, rows in data.items()}

    async def say(self, run: str, at: int, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """The run's parameters and metrics, and that it is over; the same again changes nothing."""
        rows = [{"key": name, "value": value, "timestamp": at, "step": 0} for name, value in metrics.items()]
        body = {"run_id": run, "params": _pairs(params), "metrics": rows}
        await self._call("POST", "runs/log-batch", json=body)
        await self._call("POST", "runs/update", json={"run_id": run, "status": "FINISHED", "end_time": at})

    async def put(self, info: Mapping[str, Any], path: str, content: bytes) -> None:
        """An artefact of a run, through the server. Raises Refused where the server has no way for them."""
        if not (place := info["artifact_uri"]).startswith(PROXY):
            raise Refused(f"artefacts lie at {place}: the server has to be started with --serve-artifacts")
        target = f"/api/2.0/mlflow-artifacts/artifacts/{place.removeprefix(PROXY).strip('/')}/{path}"
        await self._send("PUT", target, content=content, headers={"content-type": "application/octet-stream"})

    async def version(self, model: str, info: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """The number of the model version that a run has, made if it is not there."""
        if await self._found("registered-models/get", name=model) is None:
            await self._call("POST", "registered-models/create", json={"name": model})
        found = await self._call("GET", "model-versions/search", params={"filter": f"run_id='{info['run_id']}'"})
        for row in found.get("model_versions", ()):
            if row["name"] == model:
                return row["version"]
        body = {"name": model, "source": f"{info['artifact_uri']}/model", "run_id": info["run_id"]}
        body["tags"] = _pairs(tags)
        return (await self._call("POST", "model-versions/create", json=body))["model_version"]["version"]

    async def tag(self, model: str, number: str, key: str, value: str) -> None:
        body = {"name": model, "version": number, "key": key, "value": value[:LONGEST]}
        await self._call("POST", "model-versions/set-tag", json=body)

    async def alias(self, model: str, alias: str, number: str | None) -> None:
        """Point an alias at a version; None: at none."""
        if number is None:
            await self._call("DELETE", "registered-models/alias", json={"name": model, "alias": alias})
            return
        await self._call("POST", "registered-models/alias", json={"name": model, "alias": alias, "version": number})

    async def _found(self, path: str, **params: str) -> Any | None:
        """None: MLflow has no such thing."""
        answer = await self._send("GET", API + path, params=params, known=(404,))
        return None if answer.status_code == 404 else answer.json()

    async def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        return (await self._send(method, API + path, **kwargs)).json()

    async def _send(self, method: str, path: str, known: tuple[int, ...] = (), **kwargs: Any) -> httpx2.Response:
        """Raises Refused for what will never do, Unavailable for all else that is no success."""
        try:
            answer = await self._client.request(method, path, **kwargs)
        except httpx2.HTTPError as error:
            raise Unavailable(f"MLflow does not answer: {error!r}") from error
        if answer.is_success or answer.status_code in known:
            return answer
        said = f"MLflow answered {answer.status_code} to {path}: {answer.text[:300]}"
        raise Refused(said) if answer.status_code in REFUSALS else Unavailable(said)


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)[:LONGEST]} for key, value in values.items()]
