"""Nothing here reports to anybody."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_runtime_that_reports_to_its_maker_is_told_not_to(tmp_path: Path) -> None:
    """Left to itself, onnxruntime makes an identifier in the user's cache as soon as it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    code = "import services.infer.model, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-B", "-c", code], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
