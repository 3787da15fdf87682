"""The docs' blocks that may be run are run, as they stand, on a real stack: a shell for each page, in order."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands.blocks import EVERY, KINDS, ROOT, Block
from commands.world import World, world_in
from conftest import require_runtime

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1800)]

RUNNABLE = [block for block in EVERY if block.kind == "run"]
# The README's quick start is typed by test_newcomer.py, in a clone of its own; what it simulates is here.
QUICK_START = ("halfsure up --detach", "halfsure models list")
PAGES = list(dict.fromkeys(block.page for block in RUNNABLE))


def quick_start(block: Block) -> bool:
    return block.kind == "run" and block.page == "README.md" and any(words in block.text for words in QUICK_START)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require_runtime()
    with world_in(tmp_path_factory.mktemp("docs")) as world:
        yield world


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_can_be_typed(world: World, page: str) -> None:
    mine = [block for block in RUNNABLE if block.page == page and not quick_start(block)]
    with world.page(page) as folder:
        for block in mine:
            text = block.text.replace("smp_123", world.sample()) if "smp_123" in block.text else block.text
            done = world.shell(text, folder)
            row = {"block": str(block), "kind": block.kind, "exit": done.status, "seconds": done.seconds}
            print(f"\n{block}: exit {done.status} after {done.seconds} s", end="")
            note(row)
            done.check(block)


def test_what_was_not_run_is_listed() -> None:
    """Flags, files and names of these are held by tests/contract/test_docs.py; nobody has typed them."""
    rows = [
        {"block": str(one), "kind": one.kind, "why": KINDS[one.kind]} for one in EVERY if one.kind.startswith("needs-")
    ]
    target = report().with_name("unverified.json")
    target.write_text(json.dumps(rows, indent=1) + "\n")
    assert {"needs-azure", "needs-cluster"} <= {row["kind"] for row in rows}


def report() -> Path:
    folder = ROOT / "out" / "docs-commands"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "report.json"


def note(row: dict[str, Any]) -> None:
    """Added to what was told before: the file has the last word on each block."""
    file = report()
    known = {row["block"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    known |= {row["block"]: row}
    there = {str(block) for block in EVERY}
    file.write_text(json.dumps([row for name, row in known.items() if name in there], indent=1) + "\n")
