"""The whole way through the command line, on two layers: calls in, verified GGUF out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFWriter
from tiny import FAMILIES, tiny_recipe

from llmft.cli import main


@pytest.mark.parametrize("family", FAMILIES)
def test_from_calls_to_a_verified_gguf(family, bases, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["synthesize", "--count", "60", "--seed", "2", "--output", "calls.jsonl"]) == 0
    assert main(["prepare", "calls.jsonl", "--output", "prepared"]) == 0
    recipe = str(tiny_recipe(Path("recipe.yaml"), bases[family], family, Path("prepared")))
    assert main(["sft", recipe]) == 0
    assert main(["export", recipe]) == 0
    files = {path.name for path in Path("export/tiny").iterdir()}
    assert {"tiny-F16.gguf", "tiny-Q8_0.gguf", "MODEL_CARD.md", "manifest.json", "Modelfile"} <= files

    assert main(["evaluate", recipe]) == 0
    measured = json.loads(Path("runs/tiny/evaluation/metrics.json").read_text())
    assert {"base", "adapter"} <= set(json.dumps(measured).replace('"', " ").split())

    code = main(["verify", recipe])
    checks = json.loads(Path("export/tiny/verify.json").read_text())["tiny-F16.gguf"]["checks"]
    failed = [check["name"] for check in checks if not check["passed"]]
    assert failed in ([], ["stops"])  # random weights need not stop; everything else must hold
    assert code == (1 if failed else 0)

    capsys.readouterr()
    main(["chat", "export/tiny/tiny-Q8_0.gguf", "--once", "Bonjour", "--threads", "1"])
    assert capsys.readouterr().out


def test_install_gpt4all(tmp_path, capsys):
    source = tmp_path / "m-Q4_0.gguf"
    header = GGUFWriter(source, "llama")
    header.write_header_to_file()
    header.write_kv_data_to_file()
    header.close()
    models = tmp_path / "models"
    assert main(["install-gpt4all", str(source), "--models-dir", str(models), "--dry-run"]) == 0
    assert not models.exists()
    assert main(["install-gpt4all", str(source), "--models-dir", str(models)]) == 0
    assert (models / "m-Q4_0.gguf").read_bytes() == source.read_bytes()
    assert main(["install-gpt4all", str(source), "--models-dir", str(models)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["install-gpt4all", str(source), "--models-dir", str(models), "--force"]) == 0


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {}, "home/.local/share/nomic.ai/GPT4All"),
        ("linux", {"XDG_DATA_HOME": "xdg"}, "xdg/nomic.ai/GPT4All"),
        ("darwin", {}, "home/Library/Application Support/nomic.ai/GPT4All"),
        ("win32", {}, "home/AppData/Local/nomic.ai/GPT4All"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/nomic.ai/GPT4All"),
    ],
)
def test_models_folder_of_each_system(platform, environment, folder):
    from llmft.export.gpt4all import models_folder

    assert models_folder(platform, Path("home"), environment) == Path(folder)
