"""A format of labels: fastText's, a line `__label__NAME ... the text` for each sample, in and out."""

import re
from urllib.parse import quote, unquote

from services.contracts.problem import Problem
from services.label_queue.interchange.label import Format, Incoming

PREFIX = "__label__"


def escaped(label):
    """fastText parts words at white space, so a label must have none."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), label)


class Lines:
    """A writer: pieces of the file, some labels at a time; `label.raw` is the content, since the format packs it."""

    def __init__(self, dataset):
        pass

    def begin(self):
        return ()

    def add(self, labels):
        for label in labels:
            names = label.value if isinstance(label.value, list) else [label.value]
            words = [PREFIX + escaped(name) for name in names] + label.raw.decode().split()
            yield (" ".join(words) + "\n").encode()

    def end(self):
        return ()


def read(bundle):
    """A reader: what came in, a label at a time; a line that is none costs itself alone."""
    for number, line in enumerate(bundle.document.decode().splitlines(), start=1):
        words = line.split()
        names = [unquote(word.removeprefix(PREFIX)) for word in words if word.startswith(PREFIX)]
        text = " ".join(word for word in words if not word.startswith(PREFIX))
        if bundle.answer == "classification" and len(names) != 1:
            yield Problem(422, "no-label", f"Line {number} has {len(names)} labels; this project wants one.")
        else:
            value = names[0] if bundle.answer == "classification" else names
            yield Incoming(value, raw=text.encode(), media_type="text/plain")


TEXTS = ("text-classification", "text-multi-label")
FORMAT = Format("fasttext", "text/plain", "txt", Lines, read, TEXTS, packs=True, document=".txt")
