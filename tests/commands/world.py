"""What a reader of the docs has: a stack, the projects that the pages speak of, and files of those names."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from commands.blocks import commands
from PIL import Image, ImageDraw

from services.cli.settings import StackSettings, default_root
from services.cli.stack import Stack
from services.client import Client

OFFSET = "9000"  # of all ports, so that a stack of the reader's own may run beside it
SEED = 7
SECONDS = 240  # for each command; one that starts a stack of its own took 60 to 155 beside other work
# Projects that a page takes for granted, beyond those that it makes itself; and its HALFSURE_PROJECT.
GIVEN = {"yard", "press", "post", "line"}
MAKES = {"docs/tutorials/images.md": {"yard"}, "docs/tutorials/table.md": {"press", "post", "line"}}
LABELLED = 12


def picture(label: str, rng: random.Random) -> bytes:
    """A stand-in for a photo: a round thing for a cat, an angular one for a dog, on any ground, as JPEG."""
    side = rng.randint(60, 120)
    image = Image.new("RGB", (side, side), tuple(rng.randint(0, 90) for _ in range(3)))
    size = rng.randint(side // 3, side // 2)
    x, y = rng.randint(2, side - size - 2), rng.randint(2, side - size - 2)
    draw = ImageDraw.Draw(image)
    shape = draw.ellipse if label == "cat" else draw.rectangle
    shape((x, y, x + size, y + size), fill=tuple(rng.randint(150, 255) for _ in range(3)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def photos(folder: Path, count: int, rng: random.Random, by_class: bool) -> dict[str, str]:
    """`count` pictures; what each shows by its file's name."""
    truth: dict[str, str] = {}
    for number in range(count):
        label = ("cat", "dog")[number % 2]
        name = f"IMG_{number:04}.jpg"
        place = folder / label if by_class else folder
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(picture(label, rng))
        truth[name] = label
    return truth


def table(path: Path, head: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def fill(folder: Path) -> None:
    """The files that the pages name."""
    rng = random.Random(SEED)
    photos(folder / "photos", 70, rng, by_class=True)
    readings = [[f"r{n}", round(rng.gauss(20 + 20 * (n % 2), 3), 2), rng.choice(["on", "off"])] for n in range(80)]
    table(folder / "readings.csv", ["id", "temperature", "state"], readings)
    table(
        folder / "table.csv",
        ["length", "width", "species"],
        [[round(rng.gauss(1 + n % 3, 0.3), 3), round(rng.gauss(2 - n % 3, 0.3), 3), f"s{n % 3}"] for n in range(90)],
    )
    kinds = {"order": ["ship", "buy", "send", "price"], "complaint": ["late", "broken", "refund", "angry"]}
    (folder / "letters").mkdir()
    notes = []
    for n in range(90):
        tags = ["order", "complaint"] if n % 5 == 0 else [("order", "complaint")[n % 2]]
        text = " ".join(rng.choice(kinds[tag]) for tag in tags for _ in range(6)) + f" number {n}"
        notes.append(json.dumps({"note": text, "tags": tags}))
        (folder / "letters" / f"{n}.txt").write_text(text)
    (folder / "notes.jsonl").write_text("\n".join(notes) + "\n")
    points = [
        [f"m{n // 1280}", round(rng.gauss(0, 3 if n // 64 % 2 else 1), 3), ("calm", "odd")[n // 64 % 2]]
        for n in range(6400)
    ]
    table(folder / "sensors.csv", ["machine", "vibration", "state"], points)
    table(folder / "line-1.csv", ["n", "vibration"], [[n, n % 3] for n in range(40)])
    with zipfile.ZipFile(folder / "labels.zip", "w") as archive:
        for n, label in enumerate(("cat", "dog")):
            archive.writestr(f"val/{label}/{n}.jpg", picture(label, rng))
    (folder / "policy.json").write_text('{"strategy": "margin", "batch": 12}\n')


@dataclass(frozen=True)
class Typed:
    """What came of a block: its status, none if it was not done in time, and all that it has said."""

    status: int | None
    seconds: float
    limit: int
    said: str

    def check(self, what: object) -> None:
        ended = f"exit {self.status}" if self.status is not None else f"not done after {self.limit} s"
        assert self.status == 0, f"{what}: {ended}\n{self.said[-8000:]}"


@dataclass
class World:
    """A folder with the files, and a stack whose state is in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    up: bool = False

    def shell(self, text: str, folder: Path) -> Typed:
        """What a reader types, in a shell that stops at the first failure, and says what it types.

        What outlives its time is ended with all that it has started, but for a stack in the background.
        """
        limit, began = SECONDS * max(1, len(commands(text))), time.monotonic()
        with tempfile.TemporaryFile() as said:
            shell = subprocess.Popen(
                ["bash", "-xeo", "pipefail", "-c", text],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | None = shell.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                status = None
            said.seek(0)
            return Typed(status, round(time.monotonic() - began, 1), limit, said.read().decode(errors="replace"))

    def halfsure(self, line: str) -> None:
        self.shell(f"halfsure {line}", self.folder).check("what the page takes for granted")

    @contextmanager
    def page(self, page: str) -> Iterator[Path]:
        """A fresh copy of the files, and the projects that the page takes for granted."""
        if page != "README.md":
            self.ready(GIVEN - MAKES.get(page, set()))
        folder = self.folder / "pages" / page.replace("/", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        (folder / ".venv").symlink_to(Path(sys.prefix))
        shutil.copytree(default_root() / "deploy", folder / "deploy", symlinks=True)
        for name in GIVEN - MAKES.get(page, set()):
            shutil.copyfile(self.folder / f"{name}.yaml", folder / f"{name}.yaml") if page != "README.md" else None
        before = dict(self.environment)
        text = (default_root() / page).read_text()
        self.environment |= (
            {} if "--project" in text and page.startswith("docs/tutorials") else {"HALFSURE_PROJECT": "yard"}
        )
        try:
            yield folder
        finally:
            self.environment = before

    def ready(self, projects: set[str]) -> None:
        """The stack, and projects with some answers in them."""
        if not self.up:
            self.halfsure("up --detach")
            self.up = True
        made = {
            "yard": "--data photos/ --labels cat,dog",
            "press": "--data readings.csv --key-column id --labels good,bad",
            "post": "--data letters/ --labels order,complaint",
            "line": "--data sensors.csv --stream-column machine --window 16 --labels calm,odd",
        }
        for name in sorted(projects):
            if not (self.folder / f"{name}.yaml").exists():
                self.halfsure(f"new {name} {made[name]}")
                self.halfsure(f"apply {name}.yaml")
                if name == "yard":
                    self.halfsure("ingest photos/ --project yard")
                    self.answer(LABELLED)

    def answer(self, count: int) -> None:
        """Somebody labels: whatever, for the pages that speak of labels. A stand-in for people."""
        deadline, given = time.monotonic() + 300, 0
        with self.client() as client:
            while given < count and time.monotonic() < deadline:
                told = client.label_queue.post_tasks_claim(json={"n": 6, "annotator": "ann"})
                for task in told["tasks"] if told else ():
                    value = ("cat", "dog")[given % 2]
                    body = {"annotator": "ann", "epoch": task["lease"]["epoch"], "value": value}
                    client.label_queue.post_task_annotations(task["id"], json=body)
                    given += 1
                time.sleep(0.2)
        assert given >= count, "no questions came"

    def client(self) -> Client:
        stack = Stack(StackSettings(home=self.folder / ".halfsure", port_offset=int(OFFSET)))
        return Client(stack.url("portal"), stack.token, "yard")

    def sample(self) -> str:
        with self.client() as client:
            return client.label_queue.get_tasks(limit=1)["items"][0]["sample_id"]


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    """Files and environment; the stack starts with the first page that needs it, and goes with the world."""
    fill(folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HALFSURE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    own = {"PATH": path, "HALFSURE_PORT_OFFSET": OFFSET, "HALFSURE_HOME": str(folder / ".halfsure"), "TERM": "dumb"}
    world = World(folder, {**kept, **own, "COLUMNS": "200"})
    try:
        yield world
    finally:
        subprocess.run(["halfsure", "down"], env=world.environment, capture_output=True, cwd=folder)
