"""Tilt in a cluster: `tilt ci` tells the truth, and a change is live in a pod within seconds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import ROOT, SERVICES, Cluster, until

from services.cli.tilt import NoTilt, find_tilt

pytestmark = [pytest.mark.k8s, pytest.mark.timeout(1200)]

PORT = 10_388
LIVE_SECONDS = 20.0
CHANGE = (
    "    return service\n",
    '    service.api.add_api_route("/v1/live", lambda: {"live": True})\n    return service\n',
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree, in a folder whose files a test may change."""
    folder = tmp_path_factory.mktemp("tilt")
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


@pytest.fixture(scope="module")
def tilt(cluster: Cluster, copy: Path) -> "Tilt":
    try:
        binary = find_tilt()
    except NoTilt as error:
        pytest.skip(str(error))
    assert binary is not None
    return Tilt(cluster, binary, copy)


class Tilt:
    """Tilt's commands, in the copy, on the cluster of these tests."""

    def __init__(self, cluster: Cluster, binary: Path, folder: Path) -> None:
        self._cluster, self._binary, self._folder = cluster, binary, folder
        # Whoever runs these tests has chosen the context; Tilt does not know that it is no production.
        context = cluster.kubectl("config", "current-context").strip()
        self._environment = {**os.environ, "TILT_DISABLE_ANALYTICS": "1", "HALFSURE_K8S_CONTEXT": context}
        if cluster.tool:
            build = f"{cluster.tool} image . -f deploy/Dockerfile -t $EXPECTED_REF --timestamp 0"
            self._environment["HALFSURE_IMAGE_BUILD"] = f"{build} --build-arg SERVICE=$SERVICE"

    def start(self, *words: str, to: Any = subprocess.PIPE) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._cluster.beside(str(self._binary), *words),
            cwd=self._folder,
            env=self._environment,
            stdout=to,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, timeout: float = 620) -> tuple[int, str]:
        process = self.start(*words)
        try:
            said = process.communicate(timeout=timeout)[0]
        finally:
            end(process)
        return process.returncode, said


def end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_tilt_ci_ends_well_in_the_cluster(tilt: Tilt, loop: str, report: dict[str, Any]) -> None:
    report["tilt_ci"]["ok"] = False
    began = time.monotonic()
    code, said = tilt.run("ci", "--port", str(PORT), "--timeout", "580s", "--", "--on", "cluster")
    print(f"tilt ci: {code} after {time.monotonic() - began:.0f} s")
    report["tilt_ci"]["ok"] = code == 0
    assert code == 0, said[-6000:]
    assert "All workloads are healthy" in said


def test_a_change_of_code_is_live_within_seconds(
    tilt: Tilt, cluster: Cluster, copy: Path, loop: str, report: dict[str, Any]
) -> None:
    """Measured from the file's writing to the service's answer, through the cluster's own network."""
    ask = (
        "import sys, time, urllib.request as r, urllib.error as e\n"
        "token = {'authorization': 'Bearer ' + open('token').read().strip()}\n"
        "for _ in range(300):\n"
        "    q = r.Request('http://halfsure-ingest/v1/live', headers=token)\n"
        "    try: print(r.urlopen(q, timeout=2).read().decode()); break\n"
        "    except (e.URLError, OSError): time.sleep(0.1)\n"
        "else: sys.exit('never')\n"
    )

    def pods() -> set[str]:
        return {pod["metadata"]["uid"] for pod in cluster.get("pods", "-l", "app.kubernetes.io/name=ingest")}

    log = (copy.parent / "tilt-up.log").open("w")
    up = tilt.start("up", "--stream", "--port", str(PORT), "--", "--on", "cluster", to=log)
    try:
        # All of them: Tilt builds a few at a time, and a change waits for those that it has begun.
        resources = [f"uiresource/{service}" for service in SERVICES if service != "uplink"]
        wait = ("wait", "--port", str(PORT), "--timeout", "5s", "--for=condition=Ready", *resources)
        until(lambda: tilt.run(*wait)[0] == 0, 500, lambda: Path(log.name).read_text()[-4000:])
        until(lambda: len(pods()) == 1, 60, lambda: f"pods of ingest: {pods()}")
        before = pods()
        app = copy / "services" / "ingest" / "app.py"
        text = app.read_text()
        assert text.count(CHANGE[0]) == 1
        began = time.monotonic()
        app.write_text(text.replace(*CHANGE))
        said = cluster.kubectl("-n", loop, "exec", "client", "--", "python", "-c", ask)
        seconds = time.monotonic() - began
        app.write_text(text)
    finally:
        end(up)
        log.close()
    print(f"live after {seconds:.1f} s: {said.strip()}")
    report["tilt_live_seconds"] = round(seconds, 1)
    assert pods() == before, "the pod is the same: code was put into it"
    assert seconds < LIVE_SECONDS


def test_tilt_ci_fails_when_a_service_is_broken(tilt: Tilt, copy: Path, loop: str, report: dict[str, Any]) -> None:
    """A setting that infer cannot read, in the overlay that a developer works on."""
    report["tilt_ci"]["broken"] = False
    file = copy / "tilt" / "overlay" / "kustomization.yaml"
    overlay = yaml.safe_load(file.read_text())
    broken = [{"name": "service", "env": [{"name": "HALFSURE_INFER_CHUNK", "value": "many"}]}]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "halfsure-infer"},
        "spec": {"template": {"spec": {"containers": broken}}},
    }
    overlay["patches"].append({"patch": yaml.safe_dump(patch)})
    file.write_text(yaml.safe_dump(overlay))
    code, said = tilt.run("ci", "--port", str(PORT), "--timeout", "400s", "--", "--on", "cluster")
    # It must be infer that was wrong, by its own words, and not Tilt or the cluster.
    report["tilt_ci"]["broken"] = code == 1 and "unable to parse" in said
    assert report["tilt_ci"]["broken"], f"{code}: {said[-6000:]}"
