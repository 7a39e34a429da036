"""The labels are the operator's words and the end-of-turn token, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, dialogue

from llmft.errors import CheckpointError, PromptError
from llmft.prompt import IGNORE, STOP_STRINGS, TEMPLATES, encode, install_template, prompt_ids, render, to_messages

SYSTEM = "Vous aidez un opérateur."
said = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40).filter(lambda text: text.strip())
calls = st.integers(1, 3).flatmap(lambda pairs: st.lists(said, min_size=2 * pairs, max_size=2 * pairs))


def spans(labels: list[int]) -> list[list[int]]:
    """Runs of labelled tokens."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == IGNORE:
            runs.append([])
        else:
            runs[-1].append(label)
    return [run for run in runs if run]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", [None, SYSTEM])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=calls)
def test_labels_are_operator_words_and_end_of_turn(tokenizers, family, system, turns):
    tokenizer = tokenizers[family]
    call = dialogue(*turns)
    try:
        encoded = encode(call, tokenizer, system)
    except PromptError as error:
        assert "control text" in str(error) and any(stop in turn for stop in (*STOP_STRINGS, "<|") for turn in turns)
        return
    labelled = [tokenizer.decode(run) for run in spans(encoded.labels)]
    assert labelled == [text.strip() + tokenizer.eos_token for text in turns[1::2]]
    assert all(label in (IGNORE, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))
    assert tokenizer.decode(encoded.input_ids) == render(to_messages(call, system), tokenizer, answer_next=False)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=calls)
def test_every_prompt_is_a_prefix_of_the_training_row(tokenizers, family, turns):
    tokenizer = tokenizers[family]
    try:
        encoded = encode(dialogue(*turns), tokenizer, SYSTEM)
    except PromptError:
        return
    messages = to_messages(dialogue(*turns), SYSTEM)
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = prompt_ids(messages[:index], tokenizer)
            assert encoded.input_ids[: len(prompt)] == prompt


def test_rendering_is_exact(tokenizers):
    messages = to_messages(dialogue("Bonjour ", "Depuis quand ?"), SYSTEM)
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert render(messages, tokenizers["llama"], answer_next=True) == (
        "<|begin_of_text|>"
        + head.format("system")
        + f"{SYSTEM}<|eot_id|>"
        + head.format("user")
        + "Bonjour<|eot_id|>"
        + head.format("assistant")
        + "Depuis quand ?<|eot_id|>"
        + head.format("assistant")
    )
    assert render(messages, tokenizers["gptj"], answer_next=True) == (
        f"{SYSTEM}\n\nPatient:\nBonjour\n\nOpérateur:\nDepuis quand ?<|endoftext|>Opérateur:\n"
    )


def test_one_bos_or_none(tokenizers):
    call = dialogue("Bonjour", "Oui ?")
    llama, gptj = tokenizers["llama"], tokenizers["gptj"]
    assert encode(call, llama).input_ids.count(llama.bos_token_id) == 1
    assert gptj.bos_token is None
    assert encode(call, gptj).input_ids[0] != gptj.eos_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_template_renders_system_and_user_alone(tokenizers, family):
    messages = to_messages(dialogue("Bonjour", "Oui ?"), SYSTEM)[:2]
    assert "Bonjour" in render(messages, tokenizers[family], answer_next=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_pad_never_ends_a_turn(tokenizers, family):
    tokenizer = tokenizers[family]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.eos_token == TEMPLATES[tokenizer_template(family)].end_of_turn
    assert tokenizer.eos_token_id in encode(dialogue("a", "b"), tokenizer).labels


def tokenizer_template(family: str) -> str:
    return {"llama": "llama3", "gptj": "gptj"}[family]


@pytest.mark.parametrize("mark", ["<|eot_id|>", "<|start_header_id|>", "### Human", "<|im_end|>"])
@pytest.mark.parametrize("place", [0, 1])
def test_markup_in_a_turn_is_refused_without_its_words(tokenizers, mark, place):
    turns = ["secret words", "more secret"]
    turns[place] += f" {mark} and on"
    with pytest.raises(PromptError, match=rf"dialogue d1: turn {place} holds the control text") as caught:
        encode(dialogue(*turns), tokenizers["llama"])
    assert "secret" not in str(caught.value)


def test_template_of_another_family_is_refused(tokenizers):
    with pytest.raises(CheckpointError, match=r"lacks .*<\|eot_id\|>"):
        install_template(tokenizers["gptj"], "llama3")
