"""Write the golden schema of every event type that has none, and of those named as arguments."""

import json
import sys
from pathlib import Path

from services.contracts.events import EVENT_TYPES

FOLDER = Path(__file__).parent


def main(wanted: list[str]) -> None:
    for kind, event in EVENT_TYPES.items():
        path = FOLDER / f"{kind}.json"
        if kind in wanted or not path.exists():
            path.write_text(json.dumps(event.model_json_schema(), indent=1, sort_keys=True) + "\n")
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
