"""Every command that the docs name can be typed: kinds, flags, files, targets, variables and routes. Rows 1.6 and 1.8.

What may be run is run by `make test-docs`.
"""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from commands.blocks import EVERY, KINDS, PAGES, ROOT, Block, assigned, blocks, commands, loose
from typer._click.exceptions import NoSuchOption

from services.cli.main import app
from services.client.generate import APPS, document

reference: Any = importlib.import_module("docs.site.reference")
COMMANDS = dict(reference.every(typer.main.get_command(app), ("halfsure",)))
FOREIGN = re.compile(r"^(OTEL_|LABEL_STUDIO_|AZURE_|APP_|DAPR_)")
OURS = ("deploy/", "examples/", "docs/", "components/", "dapr/", "services/", "tests/", "bench/")
TOOLS = {
    "openssl",
    "cat",
    "rm",
    "az",
    "kubectl",
    "helm",
    "pip",
    "dapr",
    "docker",
    "python",
    "python3",
    "git",
    "unzip",
    "eval",
    "cd",
    "mosquitto_passwd",
    "curl",
}


def variables() -> set[str]:
    found = {
        name
        for kind in reference.settings_classes()
        for field in kind.model_fields
        for name in reference.names(kind, field)
    }
    command = {one.envvar for command in COMMANDS.values() for one in command.params if isinstance(one.envvar, str)}
    return found | command


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_a_block_says_in_which_setting_it_runs(block: Block) -> None:
    assert block.kind in KINDS, f"{block}: {block.kind!r} is none of {', '.join(KINDS)}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.exists()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_no_command_stands_outside_of_a_fence(page: Path) -> None:
    assert not loose(page)


def test_a_block_of_no_known_kind_and_a_loose_command_are_found(tmp_path: Path) -> None:
    """The collector itself: what it must not miss."""
    page = ROOT / "out" / "docs-test.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("```sh\nls\n```\n\n- one\n\n    ```sh sometime\n    halfsure up\n    ```\n\n    halfsure down\n")
    found = list(blocks(page))
    page_loose = loose(page)
    page.unlink()
    assert [(one.kind, one.text) for one in found] == [("", "ls\n"), ("sometime", "halfsure up\n")]
    assert not {one.kind for one in found} & set(KINDS)
    assert page_loose == ["halfsure down"]
    with pytest.raises(NoSuchOption):
        check(["halfsure", "up", "--no-such-flag"])
    with pytest.raises(AssertionError):
        check(["halfsure", "no-such-command"])


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_what_a_block_names_is_there(block: Block) -> None:
    for words in commands(block.text):
        names, own = assigned(words)
        ours = {name for name in names if not FOREIGN.match(name)}
        if own[:1] != ["make"]:
            assert ours <= variables() | {"HALFSURE_PORTS__INGEST"}, f"{block}: {ours - variables()}"
        for word in own:
            path = word.split("#")[0].removeprefix("@")
            assert not path.startswith(OURS) or (ROOT / path).exists(), f"{block}: there is no {path}"
        if own:
            check(own, str(block))


def check(words: list[str], where: str = "") -> None:
    """A command of ours by its own parser, a target by make; of other people's only that they are known here."""
    program = Path(words[0]).name
    if program == "halfsure":
        _parsed(words[1:], where)
    elif program == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{where}: {done.stderr}"
    else:
        assert program in TOOLS, f"{where}: {program} is neither ours nor among {', '.join(sorted(TOOLS))}"


def _parsed(words: list[str], where: str) -> None:
    plain = [word for word in words if not word.startswith("-")]
    for size in (2, 1):
        command = COMMANDS.get(("halfsure", *plain[:size]))
        if command is not None and words[:size] == plain[:size]:
            context = command.context_class(command)
            given, left, _ = command.make_parser(context).parse_args(list(words[size:]))
            needed = {one.name for one in command.params if one.required and not one.envvar}
            assert not left, f"{where}: {left} is too much"
            assert needed <= {name for name, value in given.items() if value is not None}, f"{where}: {needed}"
            if command.name == "api":
                _route(str(given["method"]), str(given["service"]), str(given["path"]), where)
            return
    assert words in (["--install-completion"], ["--help"]), f"{where}: there is no halfsure {' '.join(words)}"


def _route(method: str, app_id: str, path: str, where: str) -> None:
    assert app_id in APPS, f"{where}: {app_id}"
    paths = [known for known, row in document(app_id)["paths"].items() if method.lower() in row]
    fits = [one for one in paths if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+?", re.escape(one)), path)]
    assert fits, f"{where}: {app_id} has no {method} {path}"


def test_the_readme_and_the_site_name_every_page() -> None:
    """The quick start, a tutorial a profile, an architecture page and the table of profiles are in the site's menu."""
    menu = yaml.safe_load((ROOT / "docs" / "site" / "mkdocs.yml").read_text())["nav"]
    named = {path for part in menu for path in _leaves(part)}
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert there <= named
    assert {f"reference/{name}" for name in reference.pages()} <= named
    assert {"index.md", "architecture.md", "choosing.md", "changelog.md", "security.md"} <= named
    tutorials = {path for path in named if path.startswith("tutorials/")}
    assert {"tutorials/images.md", "tutorials/camera.md", "tutorials/azure.md"} <= tutorials  # local, iotedge, azure
    profiles = {folder.parent.name for folder in ROOT.glob("components/*/kustomization.yaml")}
    table = (ROOT / "docs" / "choosing.md").read_text()
    for profile in profiles:
        assert f"`{profile}`" in table
    for asked in ("where data lies", "encryption", "when a machine dies", "costs"):  # row 1.8
        assert f"**{asked}**" in table


def _leaves(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [
        leaf
        for value in part.values()
        for one in (value if isinstance(value, list) else [value])
        for leaf in _leaves(one)
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.exists()], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text()):
        assert (page.parent / target).exists() or "reference/" in target, target
