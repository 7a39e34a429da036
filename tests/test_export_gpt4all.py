"""What GPT4All desktop runs, and the way into it. Run with: pytest tests/test_export_gpt4all.py"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_export

from llmft.cli import main
from llmft.errors import CheckpointError, ExportError, RecipeError
from llmft.export import gpt4all
from llmft.export.delivery.desktop import require_desktop, template_faults
from llmft.export.delivery.desktop_settings import model_path, read_group, settings_path, with_keys, without_keys
from llmft.export.sources import Sources, read_sources
from llmft.export.vocabulary.pretokenizer import GPT4O_SPLIT
from llmft.export.writer import export
from llmft.prompt import TEMPLATES
from llmft.recipe import load_recipe

RUNS = {"llama-2", "llama-3.1", "mistral", "qwen-2.5", "phi-3", "phi-4", "gpt-j"}
REFUSED = {"qwen-3": "cannot run qwen3", "gemma-3": "cannot run gemma3", "gemma-2": "aborts on a Gemma 2 of 2 layers"}
USER_SETTINGS = """[General]
chatTheme=Dark
modelPath=/home/me/models

[model-other.gguf]
temperature=0.9
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    base = tiny_export.save_zoo_base(folder / "base", "llama-2")
    return export(base, None, folder / "out", "m", ["Q4_0"], system_message="Triez l'appel.")[0]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return read_sources(tiny_export.save_zoo_base(tmp_path_factory.mktemp("llama"), "llama-2"))


@pytest.mark.parametrize("name", sorted([*RUNS, *REFUSED]))
def test_desktop_runs_what_it_knows_alone(name: str, tmp_path: Path) -> None:
    sources = read_sources(tiny_export.save_zoo_base(tmp_path, name))
    if name in RUNS:
        require_desktop(sources)
        return
    with pytest.raises(ExportError, match=f"{REFUSED[name]}.*--profile llama.cpp"):
        require_desktop(sources)


def test_other_demands_of_the_desktop(llama: Sources) -> None:
    vocabulary = llama.vocabulary
    with pytest.raises(ExportError, match="pre-tokenizer 'gpt-4o'"):
        require_desktop(replace(llama, vocabulary=replace(vocabulary, splitting=replace(vocabulary.splitting, pre="gpt-4o"))))
    with pytest.raises(ExportError, match="cannot chat without a chat template"):
        require_desktop(replace(llama, vocabulary=replace(vocabulary, chat_template=None)))
    with pytest.raises(ExportError, match="lists each part of a split file"):
        require_desktop(llama, has_parts=True)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[::-1] }}", "line 1: a slice with a step"),
        ("\n{{ messages[0].content.split('x') }}", "line 2: the method 'split'"),
        ("{{ messages | sort }}", "the filter 'sort'"),
        ("{% if tools is undefined %}{% endif %}", "the test 'undefined'"),
        ("{{ dict(a=1) }}", "the function 'dict'"),
        ("{% for m in messages %}{% break %}{% endfor %}", "line 1: Encountered unknown tag 'break'"),
        ("{% if %}", "line 1"),
        ("{{ raise_exception('no') }}", "it must render a system and a user message alone"),
        ("{{ bos_token }}{{ messages[0].content }}", "it begins with the first token"),
    ],
)
def test_template_beyond_its_engine_is_named(template: str, words: str) -> None:
    assert words in template_faults(template, "<s>", "</s>")[0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_templates_are_in_its_language(name: str) -> None:
    assert template_faults(TEMPLATES[name].text, "<s>", "</s>") == []


def test_training_marks_and_macros_are_known() -> None:
    macro = "{%- macro say(m) %}{{ m.content | trim }}{% endmacro %}"
    template = macro + "{% for m in messages %}{% generation %}{{ say(m) }}{% endgeneration %}{% endfor %}"
    assert template_faults(template, "", "</s>") == []


BEYOND = [
    ("qwen-3", "qwen", "cannot run a Qwen3ForCausalLM; set export.profile to llama.cpp"),
    ("gemma-2", "gemma", "aborts on a Gemma 2 of 2 layers .* set export.profile to llama.cpp"),
]


@pytest.mark.parametrize(("family", "template", "words"), BEYOND, ids=[family for family, *_ in BEYOND])
def test_model_beyond_the_desktop_is_refused_when_the_recipe_is_loaded(
    family: str, template: str, words: str, tmp_path: Path
) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", family)
    path = tmp_path / "recipe.yaml"
    recipe: dict[str, Any] = {"name": "m", "base": str(base), "template": template, "data": {"folder": "set"}}
    recipe["export"] = {"profile": "gpt4all"}
    path.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)
    recipe["export"]["profile"] = "llama.cpp"
    path.write_text(json.dumps(recipe))
    assert load_recipe(path).export.profile == "llama.cpp"


def test_tokenizer_beyond_the_desktop_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "llama-3.1")
    tokenizer = json.loads((base / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["ignore_merges"] = False
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": GPT4O_SPLIT}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    recipe = {"name": "m", "base": str(base), "template": "llama3", "data": {"folder": "none"}, "export": {"profile": "gpt4all"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["sft", str(tmp_path / "recipe.yaml")]) == 1
    assert "does not know the pre-tokenizer 'gpt-4o'; export it for llama.cpp" in capsys.readouterr().err


def test_profiles_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_export.save_zoo_base(tmp_path / "base", "qwen-3")
    command = ["export", "--base", str(base), "--output", str(tmp_path / "m.gguf"), "--profile"]
    assert main([*command, "gpt4all"]) == 1
    assert "cannot run qwen3" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["base"]
    assert main([*command, "llama.cpp"]) == 0
    assert {"m-Q4_K_M.gguf", "m-Q8_0.gguf"} <= {path.name for path in tmp_path.iterdir()}


PLACES = [
    ("linux", {}, "home/.config/nomic.ai/GPT4All.ini"),
    ("linux", {"XDG_CONFIG_HOME": "xdg"}, "xdg/nomic.ai/GPT4All.ini"),
    ("darwin", {}, "home/.config/gpt4all.io/GPT4All.ini"),
    ("win32", {}, "home/AppData/Roaming/nomic.ai/GPT4All.ini"),
    ("win32", {"APPDATA": "roaming"}, "roaming/nomic.ai/GPT4All.ini"),
]


@pytest.mark.parametrize(("platform", "environment", "path"), PLACES)
def test_settings_of_each_system(platform: str, environment: dict[str, str], path: str) -> None:
    assert settings_path(platform, Path("home"), environment) == Path(path)


def test_keys_are_added_and_the_users_stay() -> None:
    wanted = {"temperature": "0", "contextLength": "2048"}
    text, added = with_keys(USER_SETTINGS, "model-other.gguf", wanted)
    assert added == ["contextLength"]
    assert read_group(text, "model-other.gguf") == {"temperature": "0.9", "contextLength": "2048"}
    assert text.startswith(USER_SETTINGS)
    assert without_keys(text, "model-other.gguf", {"contextLength": "2048"}) == USER_SETTINGS
    assert with_keys(text, "MODEL-OTHER.gguf", {"CONTEXTLENGTH": "1"}) == (text, [])
    assert model_path(USER_SETTINGS) == Path("/home/me/models") and model_path("") is None


@pytest.mark.parametrize("before", ["", USER_SETTINGS, USER_SETTINGS + "\n[window]\nx=1\n"])
def test_a_group_comes_and_goes_without_a_trace(before: str) -> None:
    text, added = with_keys(before, "model-m.gguf", {"a": "1", "b": "2"})
    assert added == ["a", "b"] and read_group(text, "model-m.gguf") == {"a": "1", "b": "2"}
    assert without_keys(text, "model-m.gguf", {"a": "1", "b": "2"}) == before
    changed = text.replace("b=2", "b=3")  # by the user, in the app
    assert read_group(without_keys(changed, "model-m.gguf", {"a": "1", "b": "2"}), "model-m.gguf") == {"b": "3"}


def test_install_adds_settings_and_undo_takes_them_out(exported: Path, tmp_path: Path) -> None:
    settings, models = tmp_path / "GPT4All.ini", tmp_path / "models"
    settings.write_text(USER_SETTINGS)
    words = gpt4all.install(exported, models, settings=settings, dry_run=True)
    assert "would copy" in words and "systemMessage" in words and not models.exists()
    gpt4all.install(exported, models, settings=settings)
    group = read_group(settings.read_text(), "model-m-Q4_0.gguf")
    assert group["systemMessage"] == '"Triez l\'appel."' and group["repeatPenalty"] == "1"
    assert (tmp_path / "GPT4All.ini.llmft-backup").read_text() == USER_SETTINGS
    assert [path.name for path in models.glob("*.gguf")] == ["m-Q4_0.gguf"]
    assert "would remove" in gpt4all.uninstall("m-Q4_0.gguf", models, settings=settings, dry_run=True)
    gpt4all.uninstall("m-Q4_0.gguf", models, settings=settings)
    assert settings.read_text() == USER_SETTINGS and list(models.iterdir()) == []
    with pytest.raises(ExportError, match="was not put there by llmft"):
        gpt4all.uninstall("m-Q4_0.gguf", models, settings=settings)


def test_file_that_was_there_is_kept_and_put_back(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    target = models / exported.name
    target.write_bytes(b"the user's own")
    with pytest.raises(ExportError, match="exists; replace it with --force"):
        gpt4all.install(exported, models)
    for _ in range(2):  # a second installation must not take the first for the user's file
        gpt4all.install(exported, models, force=True)
    assert target.read_bytes() == exported.read_bytes()
    assert "is again what it was" in gpt4all.uninstall(exported.name, models)
    assert target.read_bytes() == b"the user's own" and not list(models.glob("*.llmft*"))


def test_folder_chosen_in_the_app_counts(exported: Path, tmp_path: Path) -> None:
    settings = tmp_path / "GPT4All.ini"
    settings.write_text(f"[General]\nmodelPath={tmp_path / 'chosen'}\n")
    gpt4all.install(exported, None, settings=settings)
    assert (tmp_path / "chosen" / exported.name).is_file()


def test_what_the_desktop_cannot_run_is_not_installed(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    for name, content, error, words in (
        ("short.gguf", data[: len(data) // 2], CheckpointError, "is damaged"),
        ("other.gguf", data.replace(b"llama", b"qwen9"), ExportError, "cannot run 'qwen9'"),
        ("zip.gguf", b"PK" + bytes(90), CheckpointError, "is no GGUF file"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(error, match=words):
            gpt4all.install(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["Llama-3.2-1B-Instruct-Q4_0.gguf", "mistral-7b-openorca.gguf2.Q4_0.gguf"])
def test_name_of_one_of_the_desktops_own_models_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(exported.read_bytes())
    with pytest.raises(ExportError, match="name of one of GPT4All's own models, and would be taken for it; rename the file"):
        gpt4all.install(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("shown", "others", "stays"), [
    ("Triage", "[model-other.gguf]\nname=Triage\n", False),
    ("Triage", "[model-other.gguf]\nname=\"Triage\"\n", False),
    ("Triage", "[model-other.gguf]\nname=Sorting\n", True),
    ("Hermes", "", False),
])  # fmt: skip
def test_display_name_that_another_model_has_is_left_out(
    exported: Path, tmp_path: Path, shown: str, others: str, stays: bool
) -> None:
    path, settings = tmp_path / "mine.gguf", tmp_path / "GPT4All.ini"
    path.write_bytes(exported.read_bytes())
    (tmp_path / "gpt4all.ini").write_text(f'[model-mine.gguf]\nname="{shown}"\ntemperature=0\n')
    settings.write_text(others)
    gpt4all.install(path, tmp_path / "models", settings=settings)
    found = read_group(settings.read_text(), "model-mine.gguf")
    assert found == ({"name": f'"{shown}"', "temperature": "0"} if stays else {"temperature": "0"})
