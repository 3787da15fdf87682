"""docs/policies.md: its examples are policies that the service takes, and its tables are the model's."""

import ast
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from services.contracts.projects import SelectionPolicy
from services.contracts.rules import FINAL, LEDGER, All, AnyOf, Leaf, Not, zones
from services.select_uncertain.policies import check
from services.select_uncertain.rules import _ASK, Tree
from services.select_uncertain.trial import PolicyTest

TEXT = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
KINDS = {kind.model_fields["rule"].annotation.__args__[0]: kind for kind in (All, AnyOf, Not, *get_args(Leaf))}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: "+".join(e))
def test_an_example_is_a_policy_that_the_service_takes(example: dict) -> None:
    if "given" in example:
        PolicyTest.model_validate(example)
        return
    policy = SelectionPolicy.model_validate(example)
    check(policy, "image-classification")
    assert SelectionPolicy.model_validate(policy.model_dump(mode="json")) == policy
    Tree(policy.where)


def test_every_rule_has_its_row_with_its_fields_and_an_example_uses_it() -> None:
    section = TEXT.split("## Rules", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    assert set(rows) == set(KINDS)
    for name, kind in KINDS.items():
        assert set(re.findall(r"`(\w+)`", rows[name])) == set(kind.model_fields) - {"rule", "name"}, name
        assert f'"rule": "{name}"' in TEXT, name


def test_every_leaf_has_an_answer_and_is_of_one_sort() -> None:
    assert set(_ASK) | set(LEDGER) == set(get_args(Leaf))
    assert not set(FINAL) & set(LEDGER)


def test_every_field_beside_the_rules_is_named() -> None:
    fields = "where results weight audit_share near_duplicate open_per_class expire_seconds stop"
    for field in fields.split():
        assert field in SelectionPolicy.model_fields
        assert f"`{field}`" in TEXT, field


def test_zones_are_there_without_the_systems_own() -> None:
    assert {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC"} <= zones()


def test_a_policy_is_data_no_module_that_reads_one_runs_text() -> None:
    """Row 4.16 and the KAN defect: `eval(labels)` on what somebody had configured."""
    root = Path(__file__).parents[2] / "services"
    for path in [*root.glob("contracts/*.py"), *root.glob("select_uncertain/*.py")]:
        called = {
            n.func.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert not called & {"eval", "exec", "compile", "__import__"}, path.name
