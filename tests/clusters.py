"""A Kubernetes cluster for tests: kubectl, and how images, Dapr and volumes get into this kind of cluster."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.cli.settings import default_root

ROOT = default_root()
HERE = Path(__file__).parent / "k8s"
OVERLAYS = ROOT / "deploy" / "k8s" / "overlays"
SERVICES = ("ingest", "infer", "select-uncertain", "label-queue", "retrain-trigger", "uplink", "portal")
TAG = "dev"
# A busy injector is passed over, and a pod then has no sidecar: Dapr's operator ends such a pod, and the next has one.
WATCHED = ("--set", "dapr_operator.watchInterval=15s")
DAPR = ("--version", "1.18.0", "-n", "dapr-system", "--create-namespace", "--wait")


class Cluster:
    """kubectl, and how images and Dapr get into this kind of cluster."""

    def __init__(self, tool: Path | None, folder: Path) -> None:
        self._tool = tool
        self._folder = folder
        self.made_here = False

    def kubectl(self, *arguments: str, stdin: str | bytes | None = None, check: bool = True) -> str:
        command = [str(self._tool), "k"] if self._tool else ["kubectl"]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*command, *arguments], input=given, capture_output=True, check=False, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.decode()[-2000:]}")
        return done.stdout.decode() + (done.stderr.decode() if not check else "")

    def beside(self, *command: str) -> list[str]:
        """A command of this machine that shall reach the cluster: kubectl's context, and the cluster's network."""
        if self._tool is None:
            return list(command)
        home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache/one-node-cluster"))
        reach = (f"PATH={home / 'bin'}:{os.environ['PATH']}", f"KUBECONFIG={home / 'kubeconfig'}")
        pid = (home / "pid").read_text().strip()
        return ["nsenter", "--target", pid, "--net", "env", *reach, *command]

    def start(self, *arguments: str, stdin: Any = None) -> "subprocess.Popen[str]":
        """kubectl in the background, its output line by line."""
        command = [str(self._tool), "k"] if self._tool else ["kubectl"]
        return subprocess.Popen(
            [*command, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def get(self, what: str, *arguments: str, namespace: str = "halfsure") -> list[dict[str, Any]]:
        return json.loads(self.kubectl("-n", namespace, "get", what, "-o", "json", *arguments))["items"]

    @property
    def tool(self) -> Path | None:
        """What makes a cluster of one node; None where the cluster is the current context's."""
        return self._tool

    def up(self) -> None:
        if self._tool and subprocess.run([str(self._tool), "status"], capture_output=True, check=False).returncode:
            self._run("build")
            self._run("up")
            self.made_here = True
        if "dapr-operator" not in self.kubectl("-n", "dapr-system", "get", "deployments", check=False):
            self._dapr()

    def down(self) -> None:
        if self._tool and self.made_here:
            self._run("down")

    def image(self, service: str, *options: str) -> str:
        """Build an image from this checkout and bring it into the cluster; its id."""
        build = ("-f", str(ROOT / "deploy/Dockerfile"), "--build-arg", f"SERVICE={service}", *options)
        name = f"halfsure/{service}:{TAG}"
        if self._tool:
            said = self._run("image", str(ROOT), "-t", name, "--timestamp", "0", *build)
            return said.split()[-1]
        said = _output("docker", "build", "-q", "-t", name, *build, str(ROOT))
        context = _output("kubectl", "config", "current-context").strip()
        if context.startswith("kind-"):
            _output("kind", "load", "docker-image", name, "--name", context.removeprefix("kind-"))
        elif context.startswith("k3d-"):
            _output("k3d", "image", "import", name, "--cluster", context.removeprefix("k3d-"))
        else:
            print(f"{context}: {name} is taken to be where the cluster pulls from")
        return said.strip()

    def volumes(self, namespace: str) -> None:
        """Where the cluster makes none itself, the overlay's claims get folders of the only node."""
        if not self.kubectl("get", "storageclass", "-o", "name").strip():
            folder = self._folder / namespace
            for name in ("redis", "blobs"):
                (folder / name).mkdir(parents=True)
                (folder / name).chmod(0o777)
            text = (HERE / "volumes.yaml").read_text()
            self.kubectl("apply", "-f", "-", stdin=text.format(folder=folder, namespace=namespace))

    def _dapr(self) -> None:
        if self._tool:
            self._run("dapr", *WATCHED)
            return
        chart = ("dapr", "--repo", "https://dapr.github.io/helm-charts/", *DAPR)
        hardened = ("--set", "dapr_sidecar_injector.sidecarDropALLCapabilities=true")
        _output("helm", "upgrade", "--install", "dapr", *chart, *hardened, *WATCHED)

    def _run(self, *arguments: str) -> str:
        return _output(str(self._tool), *arguments)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}"
    return done.stdout


def until(condition: Callable[[], Any], seconds: float, what: Callable[[], str]) -> Any:
    """What the condition gives once it is true; fails with `what` when it never is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)
    return found


def ready(cluster: Cluster, namespace: str = "halfsure") -> bool:
    """Every pod is there and N/N."""
    for one in cluster.get("deployments", namespace=namespace):
        status, wanted = one["status"], one["spec"]["replicas"]
        current = status.get("observedGeneration") == one["metadata"]["generation"]
        counts = {status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")}
        if not current or counts != {wanted}:
            return False
    # The pods of training Jobs come and go.
    pods = cluster.get("pods", "-l", "!job-name", namespace=namespace)
    return bool(pods) and all(
        not pod["metadata"].get("deletionTimestamp")
        and all(each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": False}]))
        for pod in pods
    )
