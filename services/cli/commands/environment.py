"""`halfsure env`: what `dapr run -f dapr` needs to know."""

import shlex

from services.cli.specs import shared_environment
from services.cli.stack import Stack
from services.cli.terminal import HomeOption, app, load_settings
from services.cli.toolchain import find_cli


@app.command("env")
def environment(home: HomeOption = None) -> None:
    """Print exports for `dapr run -f dapr`: eval "$(halfsure env)" after `halfsure up --only-infrastructure -d`."""
    plan = Stack(load_settings(home)).plan()
    runtime = plan.home.path / "runtime"
    # `dapr run -f` looks for .dapr/bin and .dapr/config.yaml in the runtime path, and nowhere else.
    inner = runtime / ".dapr"
    inner.mkdir(parents=True, exist_ok=True)
    link = inner / "bin"
    link.unlink(missing_ok=True)
    link.symlink_to(plan.dapr_bin)
    configuration = plan.run_file.common.config_file_path or "config.yaml"
    (inner / "config.yaml").write_bytes(plan.run_file.resolve(configuration).read_bytes())
    values = {
        **shared_environment(plan, plan.places[0]),
        "HALFSURE_STATE_DIR": str(plan.home.path / "state"),
        "DAPR_RUNTIME_PATH": str(runtime),
    }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    cli = find_cli()
    if cli is not None:
        print(f'export PATH={shlex.quote(str(cli.parent))}:"$PATH"')
