"""XML of strangers: small, without a DTD, and read by local names, since every maker has its own prefixes. Pure."""

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

LARGEST = 1 << 20


def parsed(raw: bytes) -> Element:
    """Raises ValueError for what is no XML, too large, or brings definitions of its own, as entity bombs do."""
    if len(raw) > LARGEST:
        raise ValueError(f"{len(raw)} bytes of XML are too many")
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError("XML with a DTD is not read")
    try:
        return ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise ValueError(f"this is no XML: {error}") from None


def all_of(element: Element, name: str) -> Iterator[Element]:
    """The descendants of this local name, in order."""
    return (found for found in element.iter() if isinstance(found.tag, str) and found.tag.rpartition("}")[2] == name)


def text(element: Element, name: str) -> str | None:
    """The text of the first descendant of this local name, stripped; None if there is none."""
    found = next(all_of(element, name), None)
    return (found.text or "").strip() or None if found is not None else None
