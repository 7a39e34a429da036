"""The risk table is held: each hazard has a control, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "compliance.md"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def hazards() -> list[list[str]]:
    """The rows of the risk table, as cells."""
    section = PAGE.read_text("utf-8").partition("\n## Risks\n")[2]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def functions(name: str) -> set[str]:
    path = Path(__file__).with_name(name)
    assert path.is_file(), f"docs/compliance.md names {name}, which is not there"
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_hazard_names_its_control_and_a_test():
    rows = hazards()
    assert len(rows) > 15
    for row in rows:
        assert len(row) == 4 and all(row), row
        assert NAMED.search(row[3]), row


def test_the_tests_that_the_page_names_exist():
    named = NAMED.findall(PAGE.read_text("utf-8"))
    assert len(named) > 20
    assert [f"{file}::{test}" for file, test in named if test not in functions(file)] == []


def test_the_page_says_what_is_not_decided_here():
    text = PAGE.read_text("utf-8")
    assert "not a medical device" in text and "⚖" in text and "⚕" in text
