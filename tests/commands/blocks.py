"""The shell blocks of the docs, each with the setting that it runs in: the second word of its fence."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.cli.settings import default_root

ROOT = default_root()
PAGES = sorted(
    [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md")]
    + [*(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)
# What a fence may say, and how its commands are held.
KINDS = {
    "run": "run by `make test-docs`, in order, a shell for each page",
    "make": "targets that CI and their own tests run; here their recipe is asked for (`make -n`)",
    "dapr": "run by tests/loop/test_dapr_run.py",
    "settings": "variables, each of which has to be one that a service reads",
    "mlflow": "variables, likewise",
    "servers": "variables, likewise",
    "tested": "played by tests of these very commands, with other names of files",
    "needs-azure": "not run: needs a subscription",
    "needs-builder": "not run: needs docker or podman",
    "needs-cluster": "not run: needs a cluster, kubectl and helm",
    "needs-device": "not run: needs a camera or a device",
    "needs-network": "not run: needs a package registry",
    "needs-server": "not run: needs a server of somebody else's",
}
SHELL = ("sh", "bash", "shell", "console", "zsh")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
LOOSE = re.compile(
    r"^ {4,}(halfsure|make|kubectl|helm|pip|curl|az|docker|export|git|[A-Z_]+=\S+ \w)\b.*$", re.MULTILINE
)
UNSEEN = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block: the page, the line of its fence, its kind (empty if it says none), and its text."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, root: Path = ROOT) -> Iterator[Block]:
    """The shell blocks of a page of a checkout, in order."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        language, _, kind = match["info"].strip().partition(" ")
        if language in SHELL:
            cut = len(match["indent"])
            body = "".join(line[cut:] if line.strip() else line for line in match["body"].splitlines(keepends=True))
            yield Block(str(page.relative_to(root)), text.count("\n", 0, match.start()) + 1, kind.strip(), body)


def loose(page: Path) -> list[str]:
    """Lines that look like commands in blocks without a fence, which nothing would hold."""
    outside = FENCE.sub("", UNSEEN.sub("", page.read_text()))
    return [match[0].strip() for match in LOOSE.finditer(outside)]


EVERY = [block for page in PAGES if page.exists() for block in blocks(page)]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, parts of a pipe and what follows `&&` by themselves."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        for word in lexer:
            if set(word) <= set("|&;()"):
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [_without_redirection(words) for words in found if words]


def _without_redirection(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def assigned(words: list[str]) -> tuple[list[str], list[str]]:
    """The variables that a command sets or exports, and its own words."""
    rest = words[1:] if words[:1] == ["export"] else words
    names = [word.partition("=")[0] for word in rest if re.match(r"[A-Z][A-Z0-9_]*=", word)]
    count = next((at for at, word in enumerate(rest) if not re.match(r"[A-Z][A-Z0-9_]*=", word)), len(rest))
    return names, [] if words[:1] == ["export"] else rest[count:]
