"""Every format: what goes out comes in again as it was, whatever labels are called; and peers can read it."""

import csv
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from services.contracts.events import Content
from services.contracts.ids import sample_id, sha256
from services.contracts.label_studio import config
from services.contracts.problem import Problem
from services.label_queue.interchange import FORMATS
from services.label_queue.interchange.archive import unpacked
from services.label_queue.interchange.folders import folder, label_of
from services.label_queue.interchange.label import Dataset, Format, Incoming, Label
from services.label_queue.interchange.tables import bare, guarded

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


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


def label(number: int, value: str, split: str = "train", predicted: str | None = None) -> Label:
    raw = png(number % 256)
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
    return Label(sample, value, content, split, facts, 0.5 if predicted else None, raw)


def written(form: Format, labels: list[Label], names: list[str], project: str = "p", bulk: int = 2) -> bytes:
    writer = form.writer(Dataset(project, names, "image-classification"))
    pieces = list(writer.begin())
    for start in range(0, len(labels), bulk):
        pieces += writer.add(labels[start : start + bulk])
    return b"".join([*pieces, *writer.end()])


def read(form: Format, raw: bytes) -> list[Any]:
    return list(form.read(unpacked(raw, form.document)))


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


@settings(max_examples=150)
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
