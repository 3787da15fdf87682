"""One data subject's data: handed out whole, and erased everywhere, with tombstones in its place.

It comes before test_wiping.py, which stops the stack.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import wait_until
from trust.playing import PERSON, Command, Played

from services.cli.rest import Refused
from services.contracts.ids import sha256, task_id

pytestmark = [pytest.mark.loop, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="session")]
WHOSE = ("--attribute", f"person={PERSON}", "--project", "digits")


async def test_all_that_is_kept_of_a_subject_is_handed_out_and_nobody_elses(
    played: Played, tmp_path: Path, halfsure: Command
) -> None:
    file = tmp_path / "subject.zip"
    done = halfsure("subject", "export", str(file), *WHOSE, "--home", str(played.home))
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("subject.json"))
        contents = {Path(name).stem: archive.read(name) for name in archive.namelist() if name.startswith("contents/")}
    assert contents == {sample: item.content for sample, item in played.person.items()}
    rows = {row["sample"]["sample_id"]: row for row in told["samples"]}
    assert rows.keys() == played.person.keys()
    labels = {name: row["label"]["value"] for name, row in rows.items() if (row["label"] or {}).get("value")}
    assert labels == {name: item.label for name, item in played.person.items() if name in played.after["labels"]}
    assert labels, "some of the subject's samples were labelled"
    assert all(rows[name]["trained"] and rows[name]["trained"][0]["model"] for name in labels)
    assert all(
        {"sample.ingested", "sample.scored"} <= {one["type"] for one in row["history"]} for row in told["samples"]
    )
    assert "oracle" not in json.dumps(told), "who labelled is about somebody else"
    others = played.after["samples"].keys() - played.person.keys()
    assert not [name for name in others if name in json.dumps(told)]


async def test_an_erased_subject_is_nowhere_and_its_tombstones_are_kept(played: Played, halfsure: Command) -> None:
    rest, names = played.rest, sorted(played.person)
    done = halfsure("subject", "erase", *WHOSE, "--home", str(played.home))
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[str] = []

    async def nothing_left() -> bool:
        found[:] = [*_on_disk(played), *_in_state(played), *await _in_answers(played)]
        return not found

    try:
        await wait_until(nothing_left, 60)
    except AssertionError:
        pytest.fail("\n".join(found[:40]))
    gone = [row for row in (await rest.get("ingest", "/v1/samples", state="WITHDRAWN", limit=500))["items"]]
    assert sorted(row["sample_id"] for row in gone) == names
    assert all(row["withdrawn"]["why"] == "privacy" and row["attributes"] == {} for row in gone)
    again = await _status(played, "ingest", f"/v1/samples/{names[0]}")
    assert again == 410
    answer = await rest.post("ingest", "/v1/samples", json={**played.person[names[0]].body})
    assert (answer["sample_id"], answer["state"]) == (names[0], "WITHDRAWN"), "what was withdrawn does not come back"
    assert _on_disk(played) == []


def _on_disk(played: Played) -> list[str]:
    """Files of the blob store that hold the content, or name a sample."""
    found = []
    for path in (played.home / "blobs").rglob("*"):
        raw = path.read_bytes() if path.is_file() else b""
        for name, item in played.person.items():
            if item.content in raw or name.encode() in raw or sha256(item.content) in path.name:
                found.append(f"{name} is in {path.relative_to(played.home)}")
    return found


def _in_state(played: Played) -> list[str]:
    """Records that name the person; answers to Idempotency-Keys go by themselves, after a day."""
    found = []
    with redis.Redis(port=played.stack.ports["redis"]) as store:
        for key in store.scan_iter(count=1000):
            if store.type(key) != b"hash" or b"||idem:" in key:
                continue
            if any(PERSON.encode() in value for value in store.hvals(key)):
                found.append(f"{key.decode()} names the person")
    return found


async def _in_answers(played: Played) -> list[str]:
    """What a caller could still be given, service by service."""
    rest, found = played.rest, []
    exported = await rest.get("label-queue", "/v1/export", format="csv")
    runs = (await rest.get("retrain-trigger", "/v1/runs", limit=500))["items"]
    for name in played.person:
        statuses = {
            "content": await _status(played, "ingest", f"/v1/samples/{name}/content"),
            "task content": await _status(played, "label-queue", f"/v1/tasks/{task_id('digits', name)}/content"),
            "sample of the queue": await _status(played, "label-queue", f"/v1/samples/{name}"),
            "prediction": await _predicted(played, name),
        }
        found += [f"{name}: {what} answers {status}" for what, status in statuses.items() if status not in (404, 410)]
        if name in exported:
            found.append(f"{name} is exported")
    for run in runs:
        text = json.dumps(await _told(played, f"/v1/snapshots/{run['snapshot']['id']}/content"))
        found += [f"{name} is in snapshot {run['snapshot']['id']}" for name in played.person if name in text]
    return found


async def _status(played: Played, app_id: str, path: str) -> int:
    try:
        await played.rest.get(app_id, path)
    except Refused as refused:
        return refused.status
    return 200


async def _predicted(played: Played, name: str) -> int:
    try:
        await played.rest.post("infer", "/v1/predict", json={"sample_id": name})
    except Refused as refused:
        return refused.status
    return 200


async def _told(played: Played, path: str) -> Any:
    try:
        return await played.rest.get("retrain-trigger", path)
    except Refused as refused:
        if refused.status not in (404, 410):
            raise
        return None
