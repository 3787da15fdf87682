"""`python -m services.runtime APP-ID`: run one service beside its sidecar."""

import importlib
import sys

import uvicorn

from services.runtime import garbage, telemetry, tracing
from services.runtime.dapr_ports import connect_dapr
from services.runtime.settings import RuntimeSettings

APPS = "ingest, infer, select-uncertain, label-queue, retrain-trigger, portal, uplink"
USAGE = f"usage: python -m services.runtime APP-ID   ({APPS})"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    app_id = arguments[0]
    try:
        module = importlib.import_module(f"services.{app_id.replace('-', '_')}.app")
    except ModuleNotFoundError as error:
        print(f"{app_id}: {error}\n{USAGE}", file=sys.stderr)
        return 2
    settings = RuntimeSettings()
    telemetry.configure(app_id, settings.log_level)
    tracing.configure(app_id, settings.siteid)
    service = module.create(settings, connect_dapr)
    garbage.look_less()
    uvicorn.run(
        service.api,
        host=settings.app_host,
        port=settings.app_port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=8,
        h11_max_incomplete_event_size=1 << 16,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
