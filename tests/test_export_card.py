"""Run with: pytest tests/test_export_card.py"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_export

from llmft.export.delivery.facts import UNKNOWN, evaluated_files, licence_of, measured_section, read_verified, refresh_card
from llmft.export.stage import Wishes, export_run
from llmft.export.writer import export
from llmft.recipe import load_recipe
from llmft.run import sha256, write_json

CHECKS = [
    {"name": "logits, KL", "passed": True, "measured": 0.01234, "threshold": "", "detail": ""},
    {"name": "logits, top-1", "passed": True, "measured": 0.97, "threshold": "", "detail": ""},
    {"name": "stops", "passed": False, "measured": None, "threshold": "", "detail": ""},
]


def report(passed: bool = True) -> dict[str, Any]:
    return {"file": "m", "passed": passed, "checks": CHECKS}


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, UNKNOWN),
        ({"README.md": "---\nlanguage: fr\nlicense: apache-2.0\n---\n# Base\nlicense: other\n"}, "apache-2.0"),
        ({"README.md": "# Base\n", "LICENSE.txt": "text"}, "see LICENSE.txt in the base's folder"),
    ],
)
def test_licence_of_the_base(files: dict[str, str], licence: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence


def test_card_says_what_it_must_and_shows_later_figures(tmp_path: Path) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    (base / "README.md").write_text("---\nlicense: llama2\n---\n")
    out = tmp_path / "out"
    path = export(base, None, out, "m", ["Q8_0"])[0]
    card = out / "MODEL_CARD.md"
    text = card.read_text("utf-8")
    for words in ("Not a medical device", "(llama2)", "Intended use", "Not intended", "Not verified yet", path.name):
        assert words in text
    (out / "verify.json").write_text(json.dumps({path.name: report(), "gone.gguf": report()}))
    refresh_card(card, out / "verify.json")
    changed = card.read_text("utf-8")
    assert "| `m-Q8_0.gguf` | yes | 0.0123 | 0.97 | – | – |" in changed and "gone.gguf" not in changed
    assert "Not verified yet" not in changed
    refresh_card(card, out / "verify.json")
    assert card.read_text("utf-8") == changed
    os.utime(path, (4e9, 4e9))  # written after it was verified: the figures are of another file
    assert read_verified(out / "verify.json") == {}


def test_card_of_someone_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text("mine")
    refresh_card(tmp_path / "MODEL_CARD.md", tmp_path / "verify.json")
    refresh_card(tmp_path / "absent.md", tmp_path / "verify.json")
    assert (tmp_path / "MODEL_CARD.md").read_text() == "mine" and not (tmp_path / "absent.md").exists()


@pytest.mark.parametrize("text", ["", "[]", "{]", '{"m.gguf": 5}'])
def test_damaged_record_shows_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "verify.json").write_text(text)
    assert read_verified(tmp_path / "verify.json") == {}


def test_failed_file_stands_out() -> None:
    assert "| **no** |" in measured_section({"m.gguf": report(passed=False)})


def test_card_carries_the_figures_of_the_very_bytes_that_were_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-2")
    adapter = tiny_export.save_adapter_of(tmp_path / "adapter", base)
    recipe = {"name": "m", "base": str(base), "template": "llama2", "data": {"folder": "absent"}, "export": {"quants": ["F16"]}}
    Path("recipe.yaml").write_text(json.dumps(recipe))
    loaded, card = load_recipe(Path("recipe.yaml")), Path("export/m/MODEL_CARD.md")
    (path,) = export_run(loaded, base, adapter, Wishes())
    assert evaluated_files(path.parent, loaded.run.evaluation_dir) == [] and "## Evaluation" not in card.read_text("utf-8")
    figures = {"calls": 7, "families": 3, "emergencies": 2, "specialty_macro_f1": 0.731}
    models = {path.name: {**figures, "made_of": {"file": sha256(path)}}, "adapter": {**figures, "made_of": {}}}
    write_json(loaded.run.evaluation_dir / "metrics.json", {"test": {"origins": ["synthetic"]}, "models": models})
    export_run(loaded, base, adapter, Wishes(force=True))
    text = card.read_text("utf-8")
    assert "## Evaluation" in text and f"| `{path.name}` | – | – | – | – | – | 0.731 |" in text and "`adapter`" not in text
    other = tiny_export.save_adapter_of(tmp_path / "other", base, r=2)
    export_run(loaded, base, other, Wishes(force=True))  # other bytes: those figures are not theirs
    assert "## Evaluation" not in card.read_text("utf-8")
