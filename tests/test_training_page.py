"""docs/training.md names every field with its default and its description, as settings.py has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmft.settings import Lora, Prefer, Search, Train

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text("utf-8")


def written(default: object) -> str:
    if default is None:
        return "null"
    if isinstance(default, float):
        return f"{default:g}"
    return default if isinstance(default, str) else json.dumps(default)


@pytest.mark.parametrize("section", [Lora, Prefer, Search, Train], ids=lambda section: section.__name__)
def test_every_field_is_on_the_page(section):
    _, _, table = PAGE.partition(f"### `{section.__name__.lower()}`")
    table = table.partition("\n### ")[0]
    rows = [f"| `{name}` | `{written(field.default)}` | {field.description} |" for name, field in section.model_fields.items()]
    assert rows and [line for line in table.splitlines() if line.startswith("| `")] == rows
