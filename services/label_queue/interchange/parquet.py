"""Parquet: the table form in columns, a row group for each bulk. Pure, and needs pyarrow."""

import importlib.util
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from services.contracts.problem import Problem
from services.label_queue.interchange.archive import Sink
from services.label_queue.interchange.label import Bundle, Dataset, Label, Read, cell, referred
from services.label_queue.interchange.tables import COLUMNS, VALUES

TYPES = {
    "label_revision": "int64",
    "agreement": "double",
    "annotators": "int64",
    "schema_version": "int64",
    "is_audit": "bool",
    "weight": "double",
    "bytes": "int64",
}


def there() -> bool:
    """Whether pyarrow is installed."""
    try:
        return importlib.util.find_spec("pyarrow") is not None
    except ValueError:  # what a module that is hidden on purpose looks like
        return False


class Parquet:
    """Streams: the footer comes last, and nobody seeks."""

    def __init__(self, dataset: Dataset) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa: Any = pa
        self._sink = Sink()
        fields = [(name, pa.type_for_alias(TYPES.get(name, "string"))) for name in COLUMNS]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema)

    def begin(self) -> Iterable[bytes]:
        yield self._sink.taken()

    def add(self, labels: Sequence[Label]) -> Iterator[bytes]:
        columns = {name: [label.facts[name] for label in labels] for name in COLUMNS}
        columns |= {name: list(map(cell, columns[name])) for name in VALUES}
        self._writer.write_table(self._pa.table(columns, schema=self._schema))
        yield self._sink.taken()

    def end(self) -> Iterator[bytes]:
        self._writer.close()
        yield self._sink.taken()


def read_parquet(bundle: Bundle) -> Read:
    """Rows with `value` or `label`, and content as in our own tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(bundle.document))
        for batch in file.iter_batches(1000):
            for row in batch.to_pylist():
                yield _incoming(row, bundle)
    except (pa.ArrowException, OSError) as error:
        raise Problem(422, "malformed", f"This is no Parquet file: {error}.") from error


def _incoming(row: dict[str, Any], bundle: Bundle) -> Any:
    value = row.get("value", row.get("label"))
    if value is None or (bundle.answer == "classification" and not isinstance(value, str)):
        return Problem(422, "no-label", "The row has no answer in `value`, nor in `label`.")
    try:
        return referred(row, value, str(row.get("file_name") or ""), bundle, row.get("split"))
    except Problem as problem:
        return problem
