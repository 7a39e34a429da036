"""Tokens of a call are those that training would read, to the last one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from tiny import TEMPLATE, tiny_recipe
from tiny_set import calls, prepared_set

from llmft.dialogue import read_dialogues
from llmft.errors import CheckpointError, RecipeError
from llmft.prepare.reporting.counts import TOKENS_BIN
from llmft.prepare.token_lengths import open_counter, token_lengths, with_exact_tokens
from llmft.prompt import encode, install_template
from llmft.recipe import load_recipe

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("family", ["llama", "gptj"])
def test_counted_tokens_are_those_that_training_reads(bases, prepared, tokenizers, family, tmp_path):
    recipe = load_recipe(tiny_recipe(tmp_path / "recipe.yaml", bases[family], family, prepared, max_tokens=300))
    files = [prepared / f"{split}.jsonl" for split in SPLITS]
    pairs, by = token_lengths(files, str(tmp_path / "recipe.yaml"))
    tokenizer = tokenizers[family]
    install_template(tokenizer, TEMPLATE[family])
    encoded = [len(encode(call, tokenizer, recipe.data.system).input_ids) for file in files for call in read_dialogues(file)]
    assert len(encoded) == 50
    assert dict(pairs) == Counter(tokens // TOKENS_BIN * TOKENS_BIN for tokens in encoded)
    above = sum(tokens > 300 for tokens in encoded)
    assert 0 < above < 50
    assert by == {"tokenizer": str(tmp_path / "recipe.yaml"), "longest": max(encoded), "limit": 300, "above": above}


def test_a_folder_counts_with_its_own_template_and_no_system_message(bases, prepared, tokenizers):
    pairs, by = token_lengths([prepared / "test.jsonl"], str(bases["llama"]))
    encoded = [len(encode(call, tokenizers["llama"]).input_ids) for call in read_dialogues(prepared / "test.jsonl")]
    assert sum(calls for _, calls in pairs) == len(encoded) == 6
    assert (by["longest"], by["limit"], by["above"]) == (max(encoded), None, 0)


def test_what_is_no_tokenizer_is_one_sentence(tmp_path, bases):
    with pytest.raises(CheckpointError, match="no such folder; name a recipe"):
        open_counter(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no tokenizer that can be read") as caught:
        open_counter(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "empty" / name).write_bytes((bases["llama"] / name).read_bytes())
    with pytest.raises(CheckpointError, match="has no chat template; name the recipe instead"):
        open_counter(str(tmp_path / "empty"))
    (tmp_path / "r.yaml").write_text("name: x")
    with pytest.raises(RecipeError, match="is missing"):
        open_counter(str(tmp_path / "r.yaml"))


def test_counted_tokens_are_counted_again_when_rows_go(bases, tmp_path):
    folder, place = tmp_path / "set", str(bases["llama"])
    estimate = prepared_set(folder, tmp_path / "vault", calls(12))
    before = replace(estimate, tokens_by={"tokenizer": place})
    exact = with_exact_tokens(estimate, before, folder)
    assert (exact.tokens, exact.tokens_by) == token_lengths([folder / f"{split}.jsonl" for split in SPLITS], place)
    gone = replace(before, tokens_by={"tokenizer": str(tmp_path / "absent")})
    assert with_exact_tokens(estimate, gone, folder) is with_exact_tokens(estimate, estimate, folder) is estimate
