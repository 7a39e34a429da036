"""The training benchmark's own arithmetic: FLOPs of a token, rows without a prepared set, and the table of its results."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture()
def bench(monkeypatch):
    """bench/train.py as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location("bench_train", BENCH / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_weight_is_counted_once(bench):
    from peft import LoraConfig, get_peft_model
    from train_candidates import flops_a_token
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    block = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128
    adapter = 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert flops_a_token(adapted, 100.0) == 4 * (2 * block + 64 * 300) + 6 * 2 * adapter + 6 * 100 * 64 * 2


def test_rows_need_no_prepared_set_and_reach_real_lengths(bench, tmp_path, bases):
    arguments = argparse.Namespace(steps=1, batch=4, base=None, data=tmp_path / "none")
    told = bench.write_rows(arguments, bases["llama"], tmp_path)
    assert told["rows"] == 12 and len((tmp_path / "messages.jsonl").read_text().splitlines()) == 12
    assert told["longest_tokens"] > 2 * told["mean_tokens"] > 0
    assert len((tmp_path / "prepared/train.jsonl").read_text().splitlines()) == 12


def test_results_for_other_bases_stay_when_they_compare(bench, tmp_path):
    facts = {"versions": {"torch": "2"}, "settings": {"batch": 8}, "machine": {"gpu": "H", "load": 1.0}}
    path = tmp_path / "train-cuda.json"
    assert bench.earlier(path, facts) == {}
    path.write_text(json.dumps({**facts, "machine": {"gpu": "H", "load": 2.0}, "results": {"tiny": {}}}))
    assert bench.earlier(path, facts) == {"tiny": {}}
    for change in ({"versions": {"torch": "3"}}, {"settings": {"batch": 4}}, {"machine": {"gpu": "A"}}):
        assert bench.earlier(path, {**facts, **change}) == {}


def test_the_table_says_what_was_reached_and_what_failed(bench):
    found = {"tokens_s": 4000.4, "tokens_cpu_s": 2000.0, "peak_gb": 0.5, "mfu": 0.391, "loss": {"first": 3.0, "last": 2.0}}
    ours, theirs = ({**found, "tokens_s": speed, "grad_norm": {"median": 0.25}} for speed in (4000.4, 1600.0))
    candidates = {"llmft": ours, "trl": theirs, "unsloth": {"error": "no such module"}}
    times = bench.ratios(candidates)
    assert times == {"llmft over trl, tokens_s": 2.5, "llmft over trl, tokens_cpu_s": 1.0}
    facts = {
        "machine": {"gpu": "H", "cpu": "", "cores": 1}, "created": "now", "versions": {"torch": "2"}, "not_measured": [],
        "settings": {"batch": 8},
        "results": {"tiny": {"rows": {"mean_tokens": 300.0}, "candidates": candidates, "times_faster": times}},
    }  # fmt: skip
    table = bench.as_markdown(facts)
    assert "| llmft | 4,000 | 2,000 | 0.50 | 39.1% | 3.000 to 2.000 | 0.250 |" in table
    assert "| unsloth | failed: no such module |" in table and "- llmft over trl, tokens_s: 2.50" in table
