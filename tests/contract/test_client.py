"""The client has a method for every route of every service, and nothing besides (row 3.6)."""

import re

import pytest

from services.client import generate
from services.client.generate import APPS, TARGET, document


def test_the_client_is_what_the_services_make_of_it() -> None:
    """`python -m services.client.generate` mends it."""
    assert TARGET.read_text() == generate.source()


@pytest.mark.parametrize("app_id", APPS)
def test_every_route_has_its_method_and_every_method_its_route(app_id: str) -> None:
    title = "".join(word.title() for word in app_id.split("-"))
    part = TARGET.read_text().split(f"class {title}:", 1)[1].split("\nclass ", 1)[0]
    there = re.findall(r'"""(GET|POST|PUT|DELETE|PATCH) (\S+)"""', part)
    wanted = [(method.upper(), path) for path, row in document(app_id)["paths"].items() for method in row]
    assert sorted(there) == sorted(wanted)
    names = re.findall(r"    def (\w+)", part)
    assert len(names) == len(set(names))
