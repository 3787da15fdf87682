"""The formats that labels come and go in, by name: each a pure module with a writer and a reader.

Own ones are entry points (`plugins.py`).
"""

from services.contracts.problem import Problem
from services.contracts.projects import ProjectDocument
from services.label_queue.interchange import parquet
from services.label_queue.interchange.azureml import AzureMl, read_azureml
from services.label_queue.interchange.coco import Coco, read_coco
from services.label_queue.interchange.folders import HuggingFace, Yolo, read_hugging_face, read_yolo
from services.label_queue.interchange.jsonlines import read_json_lines
from services.label_queue.interchange.label import ALL, BOXES, CLASSES, IMAGES, Dataset, Format, Writer
from services.label_queue.interchange.label_studio import LabelStudio, read_label_studio
from services.label_queue.interchange.plugins import BadFormat, Formats
from services.label_queue.interchange.tables import Csv, JsonLines, read_csv
from services.label_queue.interchange.yolo import YoloBoxes

ZIP = "application/zip"


def yolo(dataset: Dataset) -> Writer:
    """Its layout is another one for boxes."""
    return YoloBoxes(dataset) if dataset.kind in BOXES else Yolo(dataset)


FORMATS = Formats(
    {
        one.name: one
        for one in (
            Format("jsonl", "application/x-ndjson", "jsonl", JsonLines, read_json_lines, ALL, document=".jsonl"),
            Format("csv", "text/csv; charset=utf-8", "csv", Csv, read_csv, ALL, document=".csv"),
            Format("parquet", "application/vnd.apache.parquet", "parquet", parquet.Parquet, parquet.read_parquet, ALL),
            Format(
                "label-studio", "application/json", "json", LabelStudio, read_label_studio, IMAGES, document=".json"
            ),
            Format("coco", "application/json", "json", Coco, read_coco, IMAGES, measures=True, document=".json"),
            Format("azureml", ZIP, "zip", AzureMl, read_azureml, IMAGES, document=".jsonl"),
            Format("yolo", ZIP, "zip", yolo, read_yolo, (*CLASSES, *BOXES), packs=True),
            Format("huggingface", ZIP, "zip", HuggingFace, read_hugging_face, IMAGES, packs=True),
        )
    }
)


def format_of(name: str, document: ProjectDocument) -> Format:
    """Raises a 406 problem for one that there is not, not for this project, or not without another package; a 500 one
    for one of somebody's own that is broken."""
    try:
        form = FORMATS[name]
    except KeyError:
        fit = ", ".join(FORMATS.fit(document.task))
        raise Problem(406, "format", f"There is no format {name!r:.100}; there is {fit}.") from None
    except BadFormat as error:
        raise Problem(500, "broken-format", f"The format {name} that is installed here is broken: {error}.") from error
    if document.task not in form.kinds:
        fit = ", ".join(FORMATS.fit(document.task))
        raise Problem(406, "format", f"{name} cannot carry {document.task}; for this project there is {fit}.")
    if name == "parquet" and not parquet.there():
        raise Problem(406, "format", "Parquet needs pyarrow where label-queue runs: pip install 'halfsure[parquet]'.")
    return form
