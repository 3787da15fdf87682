"""Every format: what goes out comes in again as it was, whatever labels are called; and peers can read it."""

import contextlib
import csv
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from services.contracts.events import Content
from services.contracts.ids import sample_id, sha256
from services.contracts.label_studio import config
from services.contracts.problem import Problem
from services.contracts.tasks import Task
from services.contracts.values import checked
from services.label_queue.interchange import FORMATS
from services.label_queue.interchange.archive import unpacked
from services.label_queue.interchange.folders import folder, label_of
from services.label_queue.interchange.label import Dataset, Format, Incoming, Label
from services.label_queue.interchange.tables import bare, guarded
from services.label_queue.schemas import Schema

ODD = [
    "=cmd|' /C calc'!A0",
    "'=1+1",
    "''+1",
    "@SUM(1)",
    "-5",
    "\tx",
    "\rx",
    "<script>alert(1)</script>",
    'a,"b"\nc',
    "../../etc/passwd",
    "..",
    ".",
    " lead and trail ",
    "CON",
    "a/b\\c",
    "100%25",
    "Straße 東京 🦉",
    "e\u0301",
    "\u202egpj",
    "null",
    "NaN",
    "x" * 80,
]
NAMES = st.one_of(
    st.sampled_from(ODD), st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
).filter(lambda name: name.strip())
SPLITS = st.sampled_from(["train", "evaluation"])


EDGE = {"x": 0.5, "y": 0.0, "width": 0.5, "height": 1.0}


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


def label(number: int, value: Any, split: str = "train", predicted: Any = None, raw: bytes = b"") -> Label:
    raw = raw or png(number % 256)
    digest = sha256(raw)
    content = Content(
        uri=f"blob:samples/p/{digest[:2]}/{digest}", sha256=digest, bytes=len(raw), media_type="image/png"
    )
    sample = sample_id("p", f"{number}")
    facts: dict[str, Any] = {
        "sample_id": sample,
        "task_id": f"tsk_{number}",
        "value": value,
        "label_revision": 1,
        "split": split,
        "origin": "queue",
        "agreement": 2 / 3,
        "annotators": 3,
        "schema_version": 1,
        "is_audit": False,
        "trigger": "policy",
        "weight": 1.5,
        "model_version": "mdl_1",
        "predicted": predicted,
        **content.model_dump(),
        "accepted_at": "2026-01-01T00:00:00+00:00",
    }
    return Label(sample, value, content, split, facts, None if predicted is None else 0.5, raw)


def written(form: Format, labels: list[Label], names: list[str], task: Task = "image-classification") -> bytes:
    bulk = 2
    writer = form.writer(Dataset("p", names, task))
    pieces = list(writer.begin())
    for start in range(0, len(labels), bulk):
        pieces += writer.add(labels[start : start + bulk])
    return b"".join([*pieces, *writer.end()])


def read(form: Format, raw: bytes, task: Task = "image-classification") -> list[Any]:
    return list(form.read(unpacked(raw, form.document, task)))


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=25)
@given(st.lists(st.tuples(NAMES, SPLITS, st.none() | NAMES), max_size=7))
@example([(name, "train", name) for name in ODD])
def test_what_goes_out_comes_in_again(name: str, rows: list[tuple[str, str, str | None]]) -> None:
    form = FORMATS[name]
    labels = [label(number, *row) for number, row in enumerate(rows)]
    names = sorted({value for value, _, _ in rows})
    if form.packs and not labels and name == "huggingface":
        return  # an archive without pictures has no document
    raw = written(form, labels, names)
    assert raw == written(form, labels, names), "equal labels are equal bytes"
    found = read(form, raw)
    assert all(isinstance(row, Incoming) for row in found), found
    if form.packs:
        by_bytes = {(row.value, row.split, row.raw, row.media_type) for row in found}
        assert by_bytes == {(one.value, one.split, one.raw, "image/png") for one in labels}
        assert len(found) == len(labels)
    else:
        assert [(r.value, r.split, r.sample_id, r.content) for r in found] == [
            (one.value, one.split, one.sample_id, one.content) for one in labels
        ]


def photo(number: int, width: int, height: int, turned: bool = False) -> bytes:
    """A picture of these sides when it is upright; `turned` ones lie, as cameras write them."""
    file = io.BytesIO()
    image = Image.new("L", (height, width) if turned else (width, height), number % 256)
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


@st.composite
def box(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    """Of six digits, as they are kept."""
    x, y = draw(st.integers(0, 999_998)), draw(st.integers(0, 999_998))
    width, height = draw(st.integers(1, 1_000_000 - x)), draw(st.integers(1, 1_000_000 - y))
    sides = {side: value / 1e6 for side, value in (("x", x), ("y", y), ("width", width), ("height", height))}
    return {"label": draw(st.sampled_from(names)), **sides}


@st.composite
def answered(draw: st.DrawFn, task: str) -> tuple[list[str], list[tuple[Any, str, Any, bytes]]]:
    """Names, and rows of them: a value, a split, what was predicted, a picture."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    several = st.lists(st.sampled_from(names), unique=True).map(lambda chosen: sorted(chosen, key=names.index))
    drawn = st.lists(box(names), max_size=3).map(lambda boxes: checked({"boxes": boxes}, "image-detection", names))
    values = drawn if task == "image-detection" else several
    rows = draw(st.lists(st.tuples(values, SPLITS, st.none() | values, st.booleans()), max_size=4))
    sides = st.integers(1, 3000)
    return names, [(*row[:3], photo(at, draw(sides), draw(sides) % 40 + 1, row[3])) for at, row in enumerate(rows)]


RICH: list[tuple[str, Task]] = [
    (name, task)
    for name, form in FORMATS.items()
    for task in ("image-multi-label", "image-detection")
    if task in form.kinds
]


@pytest.mark.parametrize(("name", "task"), RICH)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_lists_and_boxes_go_out_and_come_in_again(name: str, task: Task, data: st.DataObject) -> None:
    form = FORMATS[name]
    names, rows = data.draw(answered(task))
    labels = [label(number, *row) for number, row in enumerate(rows)]
    if form.packs and not labels and name == "huggingface":
        return
    raw = written(form, labels, names, task)
    assert raw == written(form, labels, names, task), "equal labels are equal bytes"
    found = read(form, raw, task)
    assert all(isinstance(row, Incoming) for row in found), found
    schema = Schema(task, names, 1)
    values = [schema.read(row.value) for row in found]
    if form.packs:
        assert {(row.raw, json.dumps(value), row.split) for row, value in zip(found, values, strict=True)} == {
            (one.raw, json.dumps(one.value), one.split) for one in labels
        }
    else:
        assert values == [one.value for one in labels]
        assert [(row.split, row.sample_id, row.content) for row in found] == [
            (one.split, one.sample_id, one.content) for one in labels
        ]


def test_every_task_has_a_format_and_each_says_what_it_cannot_carry() -> None:
    by_task = {task: [name for name, form in FORMATS.items() if task in form.kinds] for task in get_args(Task)}
    assert by_task["image-detection"] == list(FORMATS)
    assert set(FORMATS) - set(by_task["image-multi-label"]) == {"yolo"}
    assert all(by_task[task] == ["jsonl", "csv", "parquet"] for task in by_task if not task.startswith("image-"))


@settings(max_examples=150, deadline=None)
@given(NAMES)
def test_no_cell_is_a_formula_and_no_folder_leaves_its_place(name: str) -> None:
    assert bare(guarded(name)) == name
    assert guarded(name)[0] not in "=+-@\t\r"
    assert label_of(folder(name)) == name
    assert folder(name).strip(". ") == folder(name) != ""
    assert not set(folder(name)) & set('/\\:*?"<>|\0\n\r\t')


def test_a_spreadsheet_sees_no_formula_and_a_browser_no_script_of_ours() -> None:
    labels = [label(number, value, predicted=value) for number, value in enumerate(ODD)]
    raw = written(FORMATS["csv"], labels, ODD).decode()
    rows = list(csv.reader(io.StringIO(raw, newline="")))
    assert len(rows) == len(ODD) + 1
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert "<script>" not in config(ODD)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("csv", b"\xff\xfe"),
        ("csv", b'sample_id,value\n"x'),
        ("csv", b"a,b\n1,2\n"),
        ("coco", b"{"),
        ("coco", b"[]"),
        ("coco", b'{"images":[{"id":1}],"annotations":[],"categories":[]}'),
        ("coco", b'{"images":[7],"annotations":[],"categories":[]}'),
        ("label-studio", b"<"),
        ("label-studio", b"[1]"),
        (
            "label-studio",
            b'[{"data":{"image":"data:image/png;base64,!"},"annotations":[{"result":[{"type":"choices","value":{"choices":["a"]}}]}]}]',
        ),
        ("label-studio", b'[{"data":{"image":"x.png"},"annotations":[{"was_cancelled":true,"result":[]}]}]'),
        ("azureml", b"[]\n"),
        ("azureml", b'{"image_url":"x.png","label":"a"}\n'),
        ("azureml", b"{\n"),
        ("jsonl", b"{\n"),
        ("jsonl", b'{"value":"a","data":"!","media_type":"image/png"}'),
        ("yolo", b"no zip"),
        ("yolo", b"PK\x03\x04no zip"),
        ("huggingface", b"no zip"),
        ("parquet", b"PAR1"),
    ],
)
def test_what_cannot_be_read_is_a_problem_and_never_a_traceback(name: str, raw: bytes) -> None:
    try:
        found = read(FORMATS[name], raw)
    except Problem as problem:
        found = [problem]
    assert found
    assert all(isinstance(one, Problem) and 400 <= one.status < 500 for one in found), found


def answers(name: str, raw: bytes) -> list[Any]:
    """What reading gives, a problem with the file as a whole included."""
    try:
        return read(FORMATS[name], raw)
    except Problem as problem:
        return [problem]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
@settings(max_examples=20)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_noise_is_a_problem_and_never_a_traceback(name: str, raw: bytes) -> None:
    for one in answers(name, raw):
        assert isinstance(one, Incoming) or 400 <= one.status < 500


def test_files_of_other_peoples_come_with_their_pictures_in_an_archive() -> None:
    coco = {
        "images": [
            {"id": 9, "file_name": "a.png"},
            {"id": 7, "file_name": "sub/b.png"},
            {"id": 5, "file_name": "c.png"},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"image_id": 9, "category_id": 3, "bbox": [0, 0, 1, 1]},
            {"image_id": 7, "category_id": 4},
            {"image_id": 5, "category_id": 3},
            {"image_id": 5, "category_id": 4},
        ],
    }
    studio = [
        {"data": {"image": "/data/upload/1/a.png"}, "annotations": [{"result": [_choice("cat")]}]},
        {
            "data": {"image": "/data/upload/1/b.png"},
            "annotations": [{"was_cancelled": True}, {"result": [_choice("dog")]}],
        },
    ]
    azure = [{"image_url": "azureml://datastores/x/paths/pictures/a.png", "label": "cat"}]
    for name, document, expected in (
        ("coco", ("annotations.json", json.dumps(coco)), [("cat", 1), ("dog", 2), None]),
        ("label-studio", ("export.json", json.dumps(studio)), [("cat", 1), ("dog", 2)]),
        ("azureml", ("x.jsonl", "\n".join(map(json.dumps, azure))), [("cat", 1)]),
        ("csv", ("labels.csv", "file_name,label\na.png,cat\nb.png,dog\nz.png,cat\n"), [("cat", 1), ("dog", 2), None]),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(*document)
            archive.writestr("pictures/a.png", png(1))
            archive.writestr("sub/b.png", png(2))
            archive.writestr("c.png", png(3))
        found = read(FORMATS[name], file.getvalue())
        shown = [(one.value, one.raw) if isinstance(one, Incoming) else None for one in found]
        assert shown == [want and (want[0], png(want[1])) for want in expected], name


def test_boxes_of_other_peoples() -> None:
    picture = photo(1, 200, 100)
    whole = {"label": "cat", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}
    edge = {"label": "cat", "x": 0.5, "y": 0.0, "width": 0.5, "height": 1.0}
    boxes = [[20, 20, 60, 40], [100, -0.5, 100.5, 100.9]]
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png", "width": 200, "height": 100}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": boxes[0]},
            {"image_id": 2, "category_id": 7, "bbox": boxes[1]},
        ],
    }
    studio = [
        {"data": {"image": "a.png"}, "annotations": [{"result": [_rectangle(10, 20, 30, 40)]}]},
        {"data": {"image": "a.png"}, "annotations": [{"result": [_rectangle(50, 0, 50, 100)]}]},
        {"data": {"image": "a.png"}, "annotations": [{"result": [_rectangle(50, 0, 50, 100, rotation=5)]}]},
    ]
    yolo = {"data.yaml": "names: [dog, cat]\n", "labels/val/a.txt": "1 0.25 0.4 0.3 0.4\n1 0.75 0.5 0.5 1\n"}
    objects = {"bbox": boxes, "categories": ["cat", "cat"]}
    corners = {"label": "cat", "topX": 0.1, "topY": 0.2, "bottomX": 0.4, "bottomY": 0.6, "isCrowd": 0}
    for name, files, expected in (
        ("coco", {"annotations.json": json.dumps(coco), "a.png": picture}, [[whole], [edge]]),
        ("label-studio", {"x.json": json.dumps(studio), "a.png": picture}, [[whole], [edge], None]),
        ("yolo", {**yolo, "images/val/a.png": picture, "images/val/b.png": picture}, [[whole, edge], None]),
        ("azureml", {"l.jsonl": json.dumps({"image_url": "a.png", "label": [corners]}), "a.png": picture}, [[whole]]),
        (
            "huggingface",
            {"train/metadata.jsonl": json.dumps({"file_name": "a.png", "objects": objects}), "train/a.png": picture},
            [[whole, edge]],
        ),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        found = read(FORMATS[name], file.getvalue(), "image-detection")
        schema = Schema("image-detection", ["cat", "dog"], 1)
        shown = [schema.check(one.value) if isinstance(one, Incoming) else None for one in found]
        assert shown == [rows and schema.check({"boxes": rows}) for rows in expected], name


def _rectangle(x: float, y: float, width: float, height: float, rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["cat"]}
    return {"type": "rectanglelabels", "from_name": "x", "to_name": "y", "value": value}


@pytest.mark.parametrize("task", ["image-multi-label", "image-detection"])
@pytest.mark.parametrize(
    ("name", "raw"),
    [
        (
            "coco",
            b'{"images":[{"id":1,"file_name":"x"}],"annotations":[{"image_id":1,"category_id":1}],"categories":[]}',
        ),
        (
            "coco",
            b'{"images":[{"id":1,"width":0,"height":1}],"annotations":[{"image_id":1,"category_id":1,"bbox":[1]}],'
            b'"categories":[{"id":1,"name":"a"}]}',
        ),
        ("azureml", b'{"image_url":"x","label":"a"}\n'),
        ("azureml", b'{"image_url":"x","label":[{"label":"a","topX":"b"}]}\n'),
        ("label-studio", b'[{"data":{"image":"x"},"annotations":[{"result":[{"type":"rectanglelabels"}]}]}]'),
        ("parquet", b"PAR1"),
    ],
)
def test_what_holds_no_lists_or_boxes_is_a_problem(name: str, task: Task, raw: bytes) -> None:
    try:
        found = read(FORMATS[name], raw, task)
    except Problem as problem:
        found = [problem]
    assert found
    assert all(isinstance(one, Problem) and 400 <= one.status < 500 for one in found), found


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])
@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_noise_is_no_traceback_where_boxes_are_wanted(name: str, raw: bytes) -> None:
    try:
        found = read(FORMATS[name], raw, "image-detection")
    except Problem as problem:
        found = [problem]
    assert all(isinstance(one, Incoming) or 400 <= one.status < 500 for one in found)


def _choice(value: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": "x", "to_name": "y", "value": {"choices": [value]}}


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.label_queue.interchange import archive

    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train/cat/a.png", bytes(2000))
    with pytest.raises(Problem, match="may hold"):
        unpacked(file.getvalue(), None)


PEERS = pytest.mark.skipif(
    "HALFSURE_PEERS_PYTHON" not in os.environ,
    reason="HALFSURE_PEERS_PYTHON names no Python that has pycocotools and datasets",
)


def peer(program: str, *arguments: str) -> Any:
    command = [os.environ["HALFSURE_PEERS_PYTHON"], "-c", program, *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


@PEERS
def test_pycocotools_reads_our_coco(tmp_path: Path) -> None:
    labels = [label(number, value) for number, value in enumerate(ODD)]
    (tmp_path / "coco.json").write_bytes(written(FORMATS["coco"], labels, ODD))
    program = (
        "import json, sys; from pycocotools.coco import COCO; coco = COCO(sys.argv[1]); "
        "names = {c['id']: c['name'] for c in coco.loadCats(coco.getCatIds())}; "
        "print(json.dumps([[coco.loadImgs(a['image_id'])[0]['sample_id'], names[a['category_id']]] "
        "for a in coco.loadAnns(coco.getAnnIds())]))"
    )
    assert peer(program, str(tmp_path / "coco.json")) == [[one.sample_id, one.value] for one in labels]


@PEERS
def test_pycocotools_reads_our_boxes_and_finds_them_right(tmp_path: Path) -> None:
    """Taken for detections, the boxes are met by themselves, in pixels: an average precision of 1."""
    sizes = [(640, 480), (33, 500), (1, 1)]
    boxes = [
        [{"label": "a", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}, {**EDGE, "label": "b"}],
        [{**EDGE, "label": "a"}],
        [],
    ]
    labels = [
        label(at, checked({"boxes": rows}, "image-detection", ["a", "b"]), raw=photo(at, *size, turned=at == 1))
        for at, (rows, size) in enumerate(zip(boxes, sizes, strict=True))
    ]
    (tmp_path / "coco.json").write_bytes(written(FORMATS["coco"], labels, ["a", "b"], "image-detection"))
    program = (
        "import json, sys; from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval; "
        "coco = COCO(sys.argv[1]); rows = coco.loadAnns(coco.getAnnIds()); "
        "said = [{**{k: r[k] for k in ('image_id', 'category_id', 'bbox')}, 'score': .9} for r in rows]; "
        "found = COCOeval(coco, coco.loadRes(said), 'bbox'); "
        "found.evaluate(); found.accumulate(); found.summarize(); "
        "images = {i['id']: [i['sample_id'], i['width'], i['height']] for i in coco.loadImgs(coco.getImgIds())}; "
        "drawn = [[images[r['image_id']][0], r['bbox']] for r in rows]; "
        "print(json.dumps([found.stats[0], sorted(images.values()), drawn]))"
    )
    precision, images, rows = peer(program, str(tmp_path / "coco.json"))
    assert precision == pytest.approx(1.0)
    assert images == sorted([one.sample_id, *size] for one, size in zip(labels, sizes, strict=True))
    wanted = [
        [one.sample_id, [box["x"] * wide, box["y"] * high, box["width"] * wide, box["height"] * high]]
        for one, (wide, high) in zip(labels, sizes, strict=True)
        for box in one.value["boxes"]
    ]
    assert [name for name, _ in rows] == [name for name, _ in wanted]
    for (_, found), (_, box_) in zip(rows, wanted, strict=True):
        assert found == pytest.approx(box_, abs=1e-6)


@PEERS
def test_datasets_reads_our_folder_and_our_parquet(tmp_path: Path) -> None:
    labels = [label(number, value, ["train", "evaluation"][number % 2]) for number, value in enumerate(ODD)]
    with zipfile.ZipFile(io.BytesIO(written(FORMATS["huggingface"], labels, ODD))) as archive:
        archive.extractall(tmp_path / "folder")
    (tmp_path / "labels.parquet").write_bytes(written(FORMATS["parquet"], labels, ODD))
    program = (
        "import json, sys; from datasets import load_dataset; cache = sys.argv[3]; "
        "d = load_dataset('imagefolder', data_dir=sys.argv[1], cache_dir=cache); "
        "p = load_dataset('parquet', data_files=sys.argv[2], cache_dir=cache)['train']; "
        "print(json.dumps([{s: sorted([r['sample_id'], r['label'], list(r['image'].size)] for r in d[s]) for s in d}, "
        "[[r['sample_id'], r['value']] for r in p]]))"
    )
    folders, table = peer(program, str(tmp_path / "folder"), str(tmp_path / "labels.parquet"), str(tmp_path / "cache"))
    for split, ours in (("train", "train"), ("test", "evaluation")):
        assert folders[split] == sorted([one.sample_id, one.value, [4, 4]] for one in labels if one.split == ours)
    assert table == [[one.sample_id, one.value] for one in labels]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_archive_with_an_entry_without_a_name_is_read_or_refused(name: str) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("x", b"content")
    # Of a name that begins with NUL nothing is left.
    raw = file.getvalue().replace(b"\0\0x", b"\0\0\0")
    assert zipfile.ZipFile(io.BytesIO(raw)).namelist() == [""]
    form = FORMATS[name]
    with contextlib.suppress(Problem):
        list(form.read(unpacked(raw, form.document)))
