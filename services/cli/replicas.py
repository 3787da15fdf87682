"""Further replicas of services on one machine, beside the first ones: for tests and benches."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from services.cli.plan import Plan
from services.cli.ports import PortPlan, port_key
from services.cli.process import ProcessSpec
from services.cli.settings import StackSettings
from services.cli.specs import applications
from services.cli.stack import Stack

SHIFT = 20  # between the ports of two replicas


class ReplicatedStack(Stack):
    """`processes` has `<app-id>-2` and `<app-id>-2-sidecar` for second replicas; control plane and Redis are shared."""

    def __init__(self, settings: StackSettings, several: Collection[str], replicas: int = 2) -> None:
        super().__init__(settings)
        self._several, self._replicas = several, replicas

    def specs(self, plan: Plan) -> list[ProcessSpec]:
        further = [spec for number in range(1, self._replicas) for spec in _replica(plan, self._several, number)]
        return [*super().specs(plan), *further]


def _replica(plan: Plan, several: Collection[str], number: int) -> list[ProcessSpec]:
    keys = [port_key(app.app_id) for app in plan.run_file.apps]
    shifted = {
        name: port + SHIFT * number * any(name.startswith(key) for key in keys)
        for name, port in plan.ports.numbers.items()
    }
    found = applications(replace(plan, ports=PortPlan(shifted)))
    return [_named(spec, number) for spec in found if spec.name.removesuffix("-sidecar") in several]


def _named(spec: ProcessSpec, number: int) -> ProcessSpec:
    app, sidecar = spec.name.removesuffix("-sidecar"), "-sidecar" * spec.name.endswith("-sidecar")
    name = f"{app}-{number + 1}{sidecar}"
    env = {**spec.env, "HALFSURE_REPLICA": str(number)}
    if scratch := spec.env.get("HALFSURE_STATE_DIR"):
        env["HALFSURE_STATE_DIR"] = f"{scratch}-{number + 1}"
        Path(env["HALFSURE_STATE_DIR"]).mkdir(parents=True, exist_ok=True)
    return replace(spec, name=name, env=env, log=spec.log.with_name(f"{name}.log"))
