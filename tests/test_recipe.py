"""Recipes: every fault at once with its line, and every shipped file loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llmft.errors import RecipeError
from llmft.recipe import Recipe, load_recipe, save_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
SHIPPED = [
    *("demo-gptj.yaml", "demo-llama.yaml", "gemma-2-9b-qlora.yaml", "gemma-3-1b-qlora.yaml", "gptj-6b-qlora.yaml"),
    *("llama-2-7b-qlora.yaml", "llama-3.1-8b-qlora.yaml", "llama-3.2-3b-qlora.yaml", "mistral-7b-qlora.yaml"),
    *("phi-3-mini-qlora.yaml", "phi-4-qlora.yaml", "qwen2.5-7b-qlora.yaml", "qwen3-4b-qlora.yaml", "tinyllama-1.1b-qlora.yaml"),
]
GOOD = "name: tiny\nbase: org/model\ntemplate: llama3\ndata:\n  folder: data/prepared/tiny\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def load(tmp_path: Path, text: str = "", *overrides: str) -> Recipe:
    return load_recipe(written(tmp_path, GOOD + text), overrides)


def failure(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text), overrides)
    return str(caught.value).replace(str(tmp_path), ".")


def test_defaults_are_filled_in(tmp_path):
    recipe = load(tmp_path)
    assert (recipe.lora.rank, recipe.train.learning_rate, recipe.train.seed) == (16, 2e-4, 1)
    assert recipe.run.root == Path("runs/tiny") and recipe.export_dir == Path("export/tiny")
    assert not recipe.base_is_folder


def test_every_fault_comes_at_once_with_its_line(tmp_path):
    text = "name: Tiny\nbase: org/model\ntemplate: chatml\ndata:\n  folder: d\n"
    text += "lora:\n  rnak: 8\n  alpha: sixteen\ntrain:\n  epochs: 0\n"
    lines = failure(tmp_path, text).splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"./recipe.yaml:{number}:" for number in (1, 3, 8, 7, 10)]
    assert "unknown key 'lora.rnak'; did you mean 'rank'?" in lines[3]
    assert "train.epochs = 0: input should be greater than 0" in lines[4]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train: {max_steps: 0}", "./recipe.yaml:6: train: max_steps = 0 trains nothing"),
        ("train: {stop_grad_norm: 0.5}", "./recipe.yaml:6: train: stop_grad_norm must be above max_grad_norm"),
        ("train: {warmup_fraction: 1.0}", "train.warmup_fraction = 1.0: input should be less than 1"),
        ("lora: {dropout: 1.0}", "lora.dropout = 1.0: input should be less than 1"),
        (
            "train: {quantization: none}\nexport: {merge_base: nf4}",
            "./recipe.yaml: export.merge_base = nf4 merges into weights as training",
        ),
    ],
)
def test_contradictions_are_refused_when_the_recipe_loads(tmp_path, change, sentence):
    assert sentence in failure(tmp_path, f"{GOOD}{change}\n")


def test_an_unknown_key_without_a_likeness_lists_the_known_ones(tmp_path):
    assert "unknown key 'zzz'; known keys: name, base, template" in failure(tmp_path, GOOD + "zzz: 1\n")


def test_a_missing_key_says_what_it_is(tmp_path):
    sentence = failure(tmp_path, GOOD.replace("data:\n  folder: data/prepared/tiny\n", "data: {}\n"))
    assert "key 'data.folder' is missing; prepared folder with train.jsonl" in sentence


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", "+2e-4", "0.0002", ".0002"])
def test_a_number_is_a_number_however_it_is_written(tmp_path, text):
    assert load(tmp_path, f"train:\n  learning_rate: {text}\n").train.learning_rate == 2e-4
    assert load(tmp_path, "", f"train.learning_rate={text}").train.learning_rate == 2e-4


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    assert load(tmp_path, "", "name=a2e-4").name == "a2e-4"
    assert "data.folder = 20000.0: input should be a valid string" in failure(tmp_path, GOOD, "data.folder=2e4")
    assert load(tmp_path, "", "data.folder='2e4'").data.folder == "2e4"


def test_overrides_win_over_the_recipe_and_zero_is_a_value(tmp_path):
    recipe = load(
        tmp_path, "train:\n  seed: 7\n  threads: 4\n", "train.seed=0", "train.threads=0", "lora.dropout=0", "data.system=null"
    )
    assert (recipe.train.seed, recipe.train.threads, recipe.lora.dropout, recipe.data.system) == (0, 0, 0.0, None)


def test_a_list_can_be_overridden(tmp_path):
    assert load(tmp_path, "", "export.quants=[Q4_0, F16]").export.quants == ("Q4_0", "F16")
    assert "export.quants" in failure(tmp_path, GOOD, "export.quants=[Q9_K]")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.learning_rate", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("name.first=x", "'name' is no section"),
        ("train.seed=[1", "the value is not YAML"),
        ("train.seed=-1", "greater than or equal to 0"),
        ("train.lerning_rate=1e-3", "did you mean 'learning_rate'?"),
        ("lora.rank=8.5", "lora.rank = 8.5"),
        ("lora.rank=true", "lora.rank = True"),
        ("train.save_every=", "train.save_every = None"),
    ],
)
def test_a_bad_override_is_one_sentence(tmp_path, override, sentence):
    message = failure(tmp_path, GOOD, override)
    assert sentence in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD + "name: again\n", "recipe.yaml:1: not YAML: key 'name' appears twice"),
        (GOOD + "lora:\n  rank: 8\n  rank: 9\n", "recipe.yaml:7: not YAML: key 'rank' appears twice"),
        ("name: [\n", "recipe.yaml:2: not YAML"),
        ("- a list\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        (GOOD + "name2: !!python/object:os.system x\n", "not YAML"),
        (GOOD.replace("tiny\nbase", "2026-11-01\nbase"), "recipe.yaml"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path, text, sentence):
    message = failure(tmp_path, text)
    assert sentence in message and "\n" not in message


def test_a_missing_recipe_points_to_the_bundled_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.yaml cannot be read.*recipes/"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_saved_recipe_loads_to_the_same(tmp_path):
    recipe = load(tmp_path, "", "train.learning_rate=3e-5", "data.system=null")
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    assert set(yaml.safe_load((tmp_path / "saved.yaml").read_text("utf-8"))["train"]) == set(type(recipe.train).model_fields)


def test_a_base_that_cannot_be_exported_is_refused_when_the_recipe_loads(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    local = GOOD.replace("org/model", str(base))
    assert "holds no readable config.json" in failure(tmp_path, local)
    (base / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}', "utf-8")
    assert "is a MambaForCausalLM, which cannot be exported; choose one of LlamaForCausalLM" in failure(tmp_path, local)
    (base / "config.json").write_text('{"architectures": ["GPTJForCausalLM"]}', "utf-8")
    assert "template = 'llama3' does not fit a GPTJForCausalLM; use 'gptj'" in failure(tmp_path, local)
    assert load_recipe(written(tmp_path, local), ["template=gptj"]).template == "gptj"


def test_the_shipped_recipes_are_the_ones_tested():
    assert sorted(path.name for path in RECIPES.glob("*.yaml")) == sorted([*SHIPPED, "gate.yaml"])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads(name, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    text = (RECIPES / name).read_text("utf-8")
    for family, architecture in (("llama", "LlamaForCausalLM"), ("gptj", "GPTJForCausalLM")):
        if f"base: data/base/{family}\n" in text:  # the embedded base need not be made yet
            (tmp_path / family).mkdir()
            (tmp_path / family / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}', "utf-8")
            text = text.replace(f"base: data/base/{family}\n", f"base: {tmp_path / family}\n")
    recipe = load_recipe(written(tmp_path, text))
    assert name.startswith(recipe.name)
