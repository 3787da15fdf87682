"""The backend `command`: anybody's script trains, and its model is judged as every other one."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Running
from training import SPEC, N, ask, ended, evaluation, label, make, running, stored_labels

from services.retrain_trigger.backends.command import NoCommand

EXAMPLE = Path(__file__).parents[2] / "examples" / "trainer" / "train.py"
Use = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Have a script train, given as text."""

    def write(text: str) -> Path:
        script = tmp_path / "own.py"
        script.write_text(text)
        monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_BACKEND", "command")
        monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_COMMAND", shlex.join([sys.executable, str(script)]))
        monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_ATTEMPTS", "1")
        monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_KEEP_WARM", "false")
        monkeypatch.setenv("HALFSURE_SECRET", "not for scripts")
        return script

    return write


async def trained(one: Running) -> dict[str, Any]:
    await make(one)
    events = await stored_labels(one, [*evaluation(), *(label(number) for number in range(4 * N))])
    await one.deliver_batch(events[:20])
    await one.deliver_batch(events[20:])
    return (await ended(one, seconds=60))[0]


async def test_the_example_trains_a_model_that_is_promoted(tmp_path: Path, use: Use) -> None:
    """Row 1.7, for training: a setting names the trainer."""
    use(EXAMPLE.read_text())
    async with running(tmp_path) as one:
        run = await trained(one)
        assert (run["state"], run["promoted"]) == ("SUCCEEDED", True), run
        assert run["metric"]["value"] >= 0.9
        record = await ask(one, f"/v1/models/{run['model_version']}")
        assert record["lineage"]["backend"] == "command"
        assert record["lineage"]["code"]["command"].endswith("own.py")
        assert len(record["lineage"]["code"]["sha256"]) == 26
        manifest = json.loads(await one.blobs.get(record["manifest"]["uri"]))
        assert manifest["labels"] == SPEC["labels"]
        assert manifest["outputs"]["embedding"] == "embedding"


FAULTY = {
    "leaves nothing": ("", "has to leave model.onnx"),
    "breaks": ("raise SystemExit('out of luck')", "out of luck"),
    "says why": (
        "import json, sys, pathlib\n"
        "pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps("
        "{'error': {'code': 'no-classes', 'message': 'all alike'}}))",
        "no-classes: all alike",
    ),
    "no model": (
        "import sys, pathlib\nf = pathlib.Path(sys.argv[1])\n"
        "(f / 'model.onnx').write_bytes(b'nonsense')\n(f / 'manifest.json').write_text('{}')",
        "no ONNX file",
    ),
    "other outputs": (
        EXAMPLE.read_text().replace(
            '"probabilities": "probabilities", "embedding"', '"probabilities": "p", "embedding"'
        ),
        "onnxruntime refuses it",
    ),
    "other labels": (
        EXAMPLE.read_text().replace("manifest = {", 'manifest = {"labels": ["a", "b"], '),
        "manifest.json/labels",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
async def test_what_is_no_model_fails_the_run_with_its_reason(tmp_path: Path, use: Use, fault: str) -> None:
    text, says = FAULTY[fault]
    use(text)
    async with running(tmp_path) as one:
        run = await trained(one)
        assert run["state"] == "FAILED"
        assert says in run["error"], run["error"]
        assert not (await ask(one, "/v1/models"))["items"]


async def test_the_folder_is_whole_and_the_services_secrets_are_not_in_it(tmp_path: Path, use: Use) -> None:
    use(
        "import json, os, pathlib, sys\nf = pathlib.Path(sys.argv[1])\njob = json.loads((f / 'job.json').read_text())\n"
        "names = [s['path'] for s in job['samples'] + job['evaluation']] + [job['extractor']['path']]\n"
        "assert all(not pathlib.Path(n).is_absolute() and (f / n).is_file() for n in names), names\n"
        "print('secret', [n for n in os.environ if n.startswith(('HALFSURE_', 'DAPR_'))], os.getcwd() == str(f))\n"
        "raise SystemExit(1)"
    )
    async with running(tmp_path) as one:
        run = await trained(one)
        assert "secret [] True" in run["error"]


async def test_without_a_command_the_service_says_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HALFSURE_RETRAIN_TRIGGER_BACKEND", "command")
    with pytest.raises(NoCommand, match="HALFSURE_RETRAIN_TRIGGER_COMMAND"):
        async with running(tmp_path):
            pass
