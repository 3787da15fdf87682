"""The registry's mirror: on a stand-in, and on a real MLflow server where HALFSURE_MLFLOW_VENV names one."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Running, started, wait_until
from mlflow_server import StandIn, real, standing_in
from training import N, Rehearsal, ended, evaluation, label, make, running, settled, train_first
from worlds import classifier

from services.contracts.ids import sha256
from services.retrain_trigger import app
from services.runtime.ports import Ports

pytestmark = pytest.mark.usefixtures("brisk")

MODEL = "halfsure-default"
VENV = os.environ.get("HALFSURE_MLFLOW_VENV", "")
REAL = pytest.param(
    "real",
    marks=[
        pytest.mark.mlflow,
        pytest.mark.skipif(not VENV, reason="HALFSURE_MLFLOW_VENV names no environment with MLflow"),
    ],
)


class Server:
    """What a server shows of what it was told."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30)

    async def get(self, path: str, **params: str) -> Any:
        answer = await self._client.get(f"/api/2.0/mlflow/{path}", params=params)
        return answer.json() if answer.status_code == 200 else None

    async def versions(self) -> list[dict[str, Any]]:
        found = await self.get("model-versions/search", filter=f"name='{MODEL}'")
        return sorted((found or {}).get("model_versions", []), key=lambda row: int(row["version"]))

    async def alias(self, name: str) -> str | None:
        """Our version that an alias stands for."""
        found = await self.get("registered-models/alias", name=MODEL, alias=name)
        return found and tags(found["model_version"])["halfsure.version"]

    async def run(self, run: str) -> dict[str, Any]:
        return (await self.get("runs/get", run_id=run))["run"]

    async def runs(self) -> list[dict[str, Any]]:
        experiment = (await self.get("experiments/get-by-name", experiment_name=MODEL))["experiment"]["experiment_id"]
        wanted = {"experiment_ids": [experiment], "filter": "tags.`halfsure.project` = 'default'"}
        return (await self._client.post("/api/2.0/mlflow/runs/search", json=wanted)).json().get("runs", [])

    async def artefact(self, info: dict[str, Any], path: str) -> bytes:
        place = info["artifact_uri"].removeprefix("mlflow-artifacts:/").strip("/")
        return (await self._client.get(f"/api/2.0/mlflow-artifacts/artifacts/{place}/{path}")).content

    async def close(self) -> None:
        await self._client.aclose()


def tags(row: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in row["tags"]}


def pairs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["key"]: row["value"] for row in rows}


@pytest.fixture
async def standin(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[StandIn, Server]]:
    async with standing_in() as (made, url):
        named(monkeypatch, url)
        server = Server(url)
        yield made, server
        await server.close()


@pytest.fixture(params=["stand-in", REAL])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    served: Any = real(Path(VENV), folder) if request.param == "real" else standing_in()
    async with served as opened:
        url = opened if isinstance(opened, str) else opened[1]
        named(monkeypatch, url)
        one = Server(url)
        yield one
        await one.close()


def named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_MLFLOW_URL", url)
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_MLFLOW_LOOK_SECONDS", "0.05")


async def train_again(one: Running, backend: Rehearsal, accuracy: float, count: int) -> dict[str, Any]:
    backend.accuracy = accuracy
    await one.deliver_batch([label(number) for number in range((count - 1) * N, count * N)])
    return (await ended(one, count))[0]


async def champion(server: Server, version: str) -> None:
    await wait_until(lambda: _is(server, "champion", version), 60)


async def _is(server: Server, alias: str, version: str | None) -> bool:
    return await server.alias(alias) == version


async def test_every_version_is_mirrored_and_the_champion_is_an_alias(tmp_path: Path, server: Server) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        await champion(server, first["model_version"])
        worse = await train_again(one, backend, 0.3, 2)
        better = await train_again(one, backend, 0.95, 3)
        assert (worse["promoted"], better["promoted"]) == (False, True)
        await champion(server, better["model_version"])
        await wait_until(lambda: _is(server, "previous", first["model_version"]), 30)
        rows = await server.versions()
        ours = [run["model_version"] for run in (first, worse, better)]
        assert [tags(row)["halfsure.version"] for row in rows] == ours
        assert [tags(row)["halfsure.gate"].split(":")[0] for row in rows] == ["first-model", "not-better", "better"]
        for row, run in zip(rows, (first, worse, better), strict=True):
            there = await server.run(row["run_id"])
            model = (await one.call("GET", f"/v1/models/{run['model_version']}")).json()
            assert pairs(there["data"]["metrics"])["accuracy"] == pytest.approx(run["metrics"]["candidate"]["accuracy"])
            assert pairs(there["data"]["params"])["head"] == run["params"]["training"]["head"]
            assert there["info"]["status"] == "FINISHED"
            assert tags(there["data"])["halfsure.snapshot"] == model["lineage"]["snapshot"]
            assert sha256(await server.artefact(there["info"], "model/model.onnx")) == model["artefact"]["sha256"]
            assert run["model_version"].encode() in await server.artefact(there["info"], "model/manifest.json")
        assert (await one.call("POST", "/v1/models:rollback", json={"reason": "drill"})).status_code == 202
        await champion(server, first["model_version"])
        await wait_until(lambda: _is(server, "previous", None), 30)


async def test_a_restart_mirrors_nothing_twice(tmp_path: Path, server: Server, ports: Ports) -> None:
    backend = Rehearsal()
    async with running(tmp_path, backend, ports) as one:
        run = await train_first(one)
        await champion(server, run["model_version"])
    ports.state._rows.pop("mlflow:default")  # type: ignore[attr-defined]  # as if the note had been lost with the service
    async with running(tmp_path, backend, ports):
        await wait_until(lambda: "mlflow:default" in ports.state.rows())  # type: ignore[attr-defined]
        await wait_until(lambda: _noted(ports), 30)
    assert len(await server.versions()) == 1
    assert len(await server.runs()) == 1


async def _noted(ports: Ports) -> bool:
    book = (await ports.state.get(["mlflow:default"]))["mlflow:default"].value
    return set(book["aliases"]) == {"champion"}


async def test_whichever_answer_is_lost_everything_is_there_once(
    tmp_path: Path, standin: tuple[StandIn, Server]
) -> None:
    made, server = standin
    made.lose = set(range(1, 60, 2))
    async with running(tmp_path, Rehearsal()) as one:
        run = await train_first(one)
        await champion(server, run["model_version"])
        await wait_until(lambda: all(one["info"]["status"] == "FINISHED" for one in made.runs.values()))
    assert made.requests > 10
    assert len(made.runs) == len(made.models[MODEL]) == len(made.experiments) == 1
    assert len(made.artefacts) == 2


async def test_a_server_that_is_away_holds_up_nothing_and_is_caught_up_with(
    tmp_path: Path, standin: tuple[StandIn, Server]
) -> None:
    made, server = standin
    made.away = True
    backend = Rehearsal()
    async with running(tmp_path, backend) as one:
        first = await train_first(one)
        second = await train_again(one, backend, 0.95, 2)
        assert (first["promoted"], second["promoted"]) == (True, True)
        await wait_until(lambda: made.requests > 2)
        assert made.models == {}
        made.away = False
        await champion(server, second["model_version"])
        assert len(await server.versions()) == 2


async def test_of_two_replicas_one_mirrors_and_the_other_takes_over(
    tmp_path: Path, ports: Ports, standin: tuple[StandIn, Server]
) -> None:
    made, server = standin
    backend = Rehearsal()
    (tmp_path / "two").mkdir()
    created = lambda settings, connect: app.create(settings, connect, backend)  # noqa: E731
    async with started(created, tmp_path / "two", ports, replica=1) as two:
        async with running(tmp_path, backend, ports) as one:
            run = await train_first(one)
            await two.service.projects.load()
            await champion(server, run["model_version"])
            await settled(one)
            assert len(made.runs) == len(made.models[MODEL]) == 1
            holder = (await ports.state.get(["mlflow:default"]))["mlflow:default"].value["holder"]
        if holder == 0:  # the one that has gone; it is waited for
            two.clock.step(121)
        content, manifest = classifier(3.0)
        body = {"artefact": base64.b64encode(content).decode(), "manifest": manifest.model_dump(mode="json")}
        own = (await two.call("POST", "/v1/models", json=body)).json()["version"]
        assert (await two.call("POST", f"/v1/models/{own}:activate", json={"reason": "mine"})).status_code == 202
        await champion(server, own)
        assert len(made.runs) == len(made.models[MODEL]) == 2


async def test_without_a_url_nothing_is_mirrored(tmp_path: Path, ports: Ports) -> None:
    async with running(tmp_path, Rehearsal(), ports) as one:
        await make(one)
        await one.deliver_batch(evaluation(4))
        assert not any(key.startswith("mlflow:") for key in one.state.rows())
