"""The services of halfsure, and what they share."""

import os

# onnxruntime's builds report to their maker unless they are told not to before they start. This program says nothing to
# anybody; who wants to report sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - not a setting of ours, and before all of them
