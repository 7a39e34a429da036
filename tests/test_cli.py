"""The command line: quick help, one sentence for an error, exit codes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmft.cli import EXTRAS, main, parser

VERBS = (
    "synthesize",
    "prepare",
    "deidentify",
    "data",
    "base",
    "preview",
    "plan",
    "sft",
    "search",
    "crossval",
    "prefer",
    "encoder",
    "evaluate",
    "explain",
    "gate",
    "export",
    "verify",
    "install-gpt4all",
    "chat",
    "serve",
    "keys",
    "roster",
    "models",
    "feedback",
    "journal",
)


def test_help_imports_nothing_heavy():
    code = "import sys; from llmft.cli import parser; parser().format_help(); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [module for module in (*EXTRAS, "pydantic", "yaml", "rich") if f"'{module}'" in loaded]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"examples:\n  llmft {verb}" in capsys.readouterr().out


def test_all_verbs_are_tested():
    listed = re.findall(r"^    ([a-z0-9-]+)", parser().format_help(), re.MULTILINE)
    assert listed and set(listed) == set(VERBS)


@pytest.mark.parametrize("action", ["sql", "erase", "sign", "label", "protocols", "icd"])
def test_each_action_on_data_has_help(action, capsys):
    with pytest.raises(SystemExit) as left:
        main(["data", action, "--help"])
    assert left.value.code == 0 and f"llmft data {action}" in capsys.readouterr().out


def test_an_error_is_one_line_and_exit_1(tmp_path, capsys):
    assert main(["sft", str(tmp_path / "none.yaml")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("llmft: recipe ") and captured.err.count("\n") == 1
    assert "Traceback" not in captured.err and captured.out == ""


def test_debug_shows_the_traceback(tmp_path):
    from llmft.errors import RecipeError

    with pytest.raises(RecipeError):
        main(["--debug", "sft", str(tmp_path / "none.yaml")])


def test_a_missing_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from llmft.cli import main; sys.exit(main(['base', 'llama', '--corpus', 'x', '--output', 'y']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("pip install 'llmft[train]'\n") and done.stderr.count("\n") == 1


def test_ctrl_c_is_quiet(monkeypatch, capsys, tmp_path):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    importlib.import_module("llmft.prepare.synthetic.score")  # loaded later, it would keep the replaced function for good
    monkeypatch.setattr("llmft.prepare.synthetic.synthesize.synthesize", interrupted)
    assert main(["synthesize", "--output", str(tmp_path / "x.jsonl")]) == 130
    assert "stopped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "synthesize --count 2 --output PLACE",
        "synthesize --corpus --count 2 --output PLACE",
        "deidentify --input SAMPLE --output PLACE",
        "prepare SAMPLE --output PLACE",
        "journal export --desk DESK --output PLACE",
        "feedback export --desk DESK --output PLACE",
        "keys list --desk PLACE",
    ],
)
def test_a_place_under_a_file_is_a_sentence(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLMFT_VAULT", str(tmp_path / "vault"))
    (tmp_path / "file").write_text("not a folder", "utf-8")
    sample = Path(__file__).parents[1] / "data/sample/calls.jsonl"
    places = {"PLACE": tmp_path / "file" / "x", "DESK": tmp_path / "desk", "SAMPLE": sample}
    assert main([str(places.get(word, word)) for word in command.split()]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"llmft: {tmp_path / 'file' / 'x'}") and "a file stands in the way" in told
    assert (tmp_path / "file").read_text("utf-8") == "not a folder"
