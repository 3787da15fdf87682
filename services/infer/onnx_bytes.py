"""Reads just enough of an ONNX file's protobuf to see whether its weights are all inside. Pure."""

from collections.abc import Iterator

MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> field number -> message, on every path to a tensor (onnx.proto, IR version 13)."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DEEPEST = 100


class NotOnnx(ValueError):
    """The bytes are no protobuf message."""


def has_external_data(content: bytes) -> bool:
    """Whether any tensor of the model, in a subgraph or a function too, lies in another file. Raises NotOnnx."""
    return _any_external(memoryview(content), "model", 0)


def _any_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise NotOnnx("the model nests too deeply")
    for field, value in _fields(message):
        if kind == "tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value == 1)):
            return True
        inner = MESSAGES[kind].get(field)
        if inner and isinstance(value, memoryview) and _any_external(value, inner, depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs of a protobuf message; a fixed-width value is given as its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise NotOnnx(f"wire type {kind} at byte {at}")
        if at + size > len(message):
            raise NotOnnx("the model is cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise NotOnnx("the model is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NotOnnx("a number does not end")
