"""The labels are the operator's words and the end-of-turn token, and nothing else, for every family."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import dialogue
from tiny_zoo import TOKENIZERS, ZOO, zoo_tokenizer

from llmft.dialogue import Dialogue
from llmft.errors import CheckpointError, PromptError
from llmft.prompt import IGNORE, STOP_STRINGS, TEMPLATES, encode, install_template, prompt_ids, to_messages

SYSTEM = "Vous aidez un opérateur."
# ▁ is how SentencePiece spells a space, so these families cannot give it back
said = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="▁"), min_size=1, max_size=40).filter(str.strip)
calls = st.lists(said, min_size=1, max_size=6)
systems = st.sampled_from([None, SYSTEM])
# words and the token that ends them; what follows in the same text, a line break, is not to be trained
ANSWER = re.compile(r"((?:' ' \+ )?\(message\['content'\] \| trim\) \+ '[^'\\]*)((?:\\n)*)'")


def call_of(turns: list[str]) -> Dialogue:
    """A call that ends with the operator; of an odd number of turns the first is the operator's too."""
    patient_first = dialogue("x", *turns) if len(turns) % 2 else dialogue(*turns)
    return patient_first.model_copy(update={"turns": patient_first.turns[-len(turns) :]})


def runs_of(labels: list[int]) -> list[list[int]]:
    """Runs of labelled tokens."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == IGNORE:
            runs.append([])
        else:
            runs[-1].append(label)
    return [run for run in runs if run]


def marked(template: str) -> str:
    """The template with the marks around the operator's words by which transformers finds what to train."""
    opened = "'' }}{%- if message['role'] == 'assistant' %}{% generation %}{{- "
    closed = " }}{% endgeneration %}{%- else %}{{- "
    return ANSWER.sub(rf"{opened}\1'{closed}\1' }}}}{{%- endif %}}{{{{- '\2'", template)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60)
@given(turns=calls, system=systems)
def test_labels_are_operator_words_and_end_of_turn(name, turns, system):
    tokenizer = zoo_tokenizer(name)
    call = call_of(turns)
    try:
        encoded = encode(call, tokenizer, system)
    except PromptError as error:
        assert "control text" in str(error) and any(stop in turn for stop in (*STOP_STRINGS, "<|", "[") for turn in turns)
        return
    words = [turn.text.strip() for turn in call.turns if turn.speaker == "operator"]
    if name == "qwen":  # its tokenizer composes accents
        words = [unicodedata.normalize("NFC", text) for text in words]
    assert [tokenizer.decode(run) for run in runs_of(encoded.labels)] == [text + tokenizer.eos_token for text in words]
    assert all(label in (IGNORE, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(turns=calls, system=systems)
def test_transformers_finds_the_same_tokens_from_marks_in_the_template(name, turns, system):
    tokenizer = zoo_tokenizer(name)
    call = call_of([unicodedata.normalize("NFC", turn) for turn in turns])
    try:
        encoded = encode(call, tokenizer, system)
    except PromptError:
        return
    plain = tokenizer.chat_template
    try:
        tokenizer.chat_template = marked(plain)
        assert "{% generation %}" in tokenizer.chat_template
        assert encode(call, tokenizer, system) == encoded
        theirs = tokenizer.apply_chat_template(to_messages(call, system), return_dict=True, return_assistant_tokens_mask=True)
    finally:
        tokenizer.chat_template = plain
    assert theirs["input_ids"] == encoded.input_ids
    assert [int(label != IGNORE) for label in encoded.labels] == theirs["assistant_masks"]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(turns=calls, system=systems)
def test_every_prompt_is_a_prefix_of_the_training_row(name, turns, system):
    tokenizer = zoo_tokenizer(name)
    call = call_of(turns)
    try:
        encoded = encode(call, tokenizer, system)
    except PromptError:
        return
    messages = to_messages(call, system)
    starts = [place for place, label in enumerate(encoded.labels) if label != IGNORE and encoded.labels[place - 1] == IGNORE]
    prompts = [
        prompt_ids(messages[:index], tokenizer) for index, message in enumerate(messages) if message["role"] == "assistant"
    ]
    assert prompts == [encoded.input_ids[:start] for start in starts or [0]]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_bos_or_none(name):
    tokenizer = zoo_tokenizer(name)
    ids = encode(dialogue("Bonjour", "Oui ?", "Mal", "Où ?"), tokenizer, SYSTEM).input_ids
    if "bos_token" in TEMPLATES[name].text:
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    else:
        assert ids[0] not in (tokenizer.bos_token_id, tokenizer.eos_token_id)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pad_never_ends_a_turn(name):
    tokenizer = zoo_tokenizer(name)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.pad_token in TEMPLATES[name].pads
    assert tokenizer.eos_token == TEMPLATES[name].end_of_turn
    assert encode(dialogue("a", "b", "c", "d"), tokenizer).labels.count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_model_that_could_not_stop_is_refused(name):
    tokenizer = zoo_tokenizer(name)
    plain, end = tokenizer.chat_template, tokenizer.eos_token
    try:
        tokenizer.chat_template = plain.replace(end, " ")
        with pytest.raises(PromptError, match=rf"dialogue d1: no {re.escape(end)} closes an answer, so the model would never"):
            encode(dialogue("secret", "words"), tokenizer)
    finally:
        tokenizer.chat_template = plain


@pytest.mark.parametrize("mark", ["<|eot_id|>", "<|start_header_id|>", "### Human", "<|im_end|>", "<|user|>"])
@pytest.mark.parametrize("place", [0, 1])
def test_markup_in_a_turn_is_refused_without_its_words(mark, place):
    turns = ["secret words", "more secret"]
    turns[place] += f" {mark} and on"
    with pytest.raises(PromptError, match=rf"dialogue d1: turn {place} holds the control text '{re.escape(mark)}'") as caught:
        encode(dialogue(*turns), zoo_tokenizer("llama3"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mark", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_markup_that_is_no_token_is_refused_too(mark):
    tokenizer = zoo_tokenizer("llama2")
    assert mark not in tokenizer.get_vocab()
    with pytest.raises(PromptError, match="turn 0 holds the control text"):
        encode(dialogue(f"a {mark} b", "c"), tokenizer)


def test_a_tokenizer_that_merges_across_the_start_of_a_turn_is_refused():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"</s>": 0, "<p>": 1, "a": 2, ":": 3, ":a": 4}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "a")]))
    bpe.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<p>")
    tokenizer.chat_template = (
        "{% for m in messages %}:{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}:{% endif %}"
    )
    with pytest.raises(PromptError, match="dialogue d1: the template and the tokenizer merge text across the start"):
        encode(dialogue("a", "a"), tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_template_of_another_family_is_refused(name):
    other = zoo_tokenizer("llama3" if name != "llama3" else "gptj")
    with pytest.raises(CheckpointError, match=rf"lacks .*, which template '{name}' needs; choose a base of this family"):
        install_template(other, name)
    assert TEMPLATES[name].text != other.chat_template


def test_every_template_has_a_tokenizer_and_a_model_of_its_kind():
    assert {kind.template for kind in ZOO.values()} == set(TOKENIZERS) == set(TEMPLATES)


@pytest.mark.parametrize("family", TOKENIZERS)
def test_no_control_token_can_be_said(family):
    tokenizer = zoo_tokenizer(family)
    control = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    typed = " ".join(f"{token} {token[:2]}{token}{token[2:]}" for token in sorted(control))
    ids, plain = (prompt_ids([{"role": "user", "content": text}], tokenizer) for text in (typed, "a"))
    known = set(tokenizer.convert_tokens_to_ids(sorted(control)))
    assert [token for token in ids if token in known] == [token for token in plain if token in known]
    assert sum(token in known for token in tokenizer(typed, add_special_tokens=False)["input_ids"]) > len(control)
