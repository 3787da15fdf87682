"""`halfsure label` and what `up` says: one address, with the token of this home and the project."""

from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from services.cli.display import announce
from services.cli.home import Home
from services.cli.main import app


def test_label_names_the_page_of_the_stack_that_runs_here(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    home.write_record({"processes": [{"name": "portal", "url": "http://127.0.0.1:8100"}]})
    with home.lock():
        said = CliRunner().invoke(app, ["label", "--home", str(tmp_path), "--no-open", "--project", "digits"])
    assert said.exit_code == 0
    assert said.output.strip() == f"http://127.0.0.1:8100/label?token={home.secrets().admin}&project=digits"


def test_label_says_so_where_nothing_runs(tmp_path: Path) -> None:
    Home(tmp_path).create()
    assert CliRunner().invoke(app, ["label", "--home", str(tmp_path), "--no-open"]).exit_code == 1


def test_up_prints_the_address_of_the_page_with_the_token() -> None:
    console = Console(record=True, width=60)
    announce(console, {"ingest": "http://127.0.0.1:8101", "portal": "http://127.0.0.1:8100"}, "secret", "home")
    assert "http://127.0.0.1:8100/?token=secret" in console.export_text()
