"""Dialogue ─▶ messages ─▶ token ids and labels: the only code that renders or masks.

The same text reaches the model in training, evaluation, GPT4All and llama.cpp: one template a family,
in the Jinja subset that all runtimes share, with one BOS everywhere and the end-of-turn token as EOS.
Labels are the operator's tokens and the end-of-turn token, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue
from llmft.errors import CheckpointError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # label of a token that the loss does not see
ROLES = {"patient": "user", "operator": "assistant"}
Message = dict[str, str]  # {"role": "system|user|assistant", "content": …}
MARKUP = re.compile(r"<\|\w+\|>|\[/?INST\]|<</?SYS>>")

# Text at which GPT4All stops whatever the model (desktop 3.10 and the 2.8.2 bindings): an answer that
# holds one would be cut.
STOP_STRINGS = (
    "### System",
    "### Instruction",
    "### Human",
    "### User",
    "### Prompt",
    "### Response",
    "### Assistant",
    "### Context",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)


@dataclass(frozen=True)
class Template:
    """A family's chat markup and the tokens that it needs in the vocabulary."""

    file: str
    end_of_turn: str  # closes the operator's turn; becomes EOS everywhere
    pads: tuple[str, ...]  # the first of these in the vocabulary pads; never the end of turn
    markers: tuple[str, ...] = ()  # further tokens that must be single tokens

    @property
    def text(self) -> str:
        """The Jinja source."""
        return (resources.files("llmft.templates") / self.file).read_text("utf-8").rstrip("\n")


# The text is the one that the family was taught, with four liberties: one BOS at most, no default system
# message, no date (it would differ from day to day), and no white space where the family's own tokenizer
# swallows it (Phi-3) or where it would have to be learnt between the last word and the end (Llama 2).
TEMPLATES = {
    "llama2": Template("llama2.jinja", end_of_turn="</s>", pads=("<unk>",), markers=("<s>",)),
    "llama3": Template(
        "llama3.jinja",
        end_of_turn="<|eot_id|>",
        pads=("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"),
        markers=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
    "tinyllama": Template("tinyllama.jinja", end_of_turn="</s>", pads=("<unk>",), markers=("<s>",)),
    "mistral": Template("mistral.jinja", end_of_turn="</s>", pads=("<unk>",), markers=("<s>", "[INST]", "[/INST]")),
    "qwen": Template("qwen.jinja", end_of_turn="<|im_end|>", pads=("<|endoftext|>",), markers=("<|im_start|>",)),
    "phi3": Template(
        "phi3.jinja",
        end_of_turn="<|end|>",
        pads=("<|endoftext|>",),
        markers=("<|system|>", "<|user|>", "<|assistant|>"),
    ),
    "phi4": Template(
        "phi4.jinja",
        end_of_turn="<|im_end|>",
        pads=("<|dummy_85|>", "<|endoftext|>"),
        markers=("<|im_start|>", "<|im_sep|>"),
    ),
    "gemma": Template("gemma.jinja", end_of_turn="<end_of_turn>", pads=("<pad>",), markers=("<bos>", "<start_of_turn>")),
    "gptj": Template("gptj.jinja", end_of_turn="<|endoftext|>", pads=("<|extratoken_1|>",)),
}


@dataclass(frozen=True)
class Encoded:
    """One dialogue as tokens; ``input_ids`` and ``labels`` have the same length."""

    id: str
    input_ids: list[int]
    labels: list[int]


def install_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give ``tokenizer`` our template, its end-of-turn token as EOS, and a pad token of its own.

    Raises :class:`CheckpointError` when the vocabulary lacks a token that the template needs.
    """
    template = TEMPLATES[name]
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (template.end_of_turn, *template.markers) if token not in vocabulary]
    pad = next((token for token in template.pads if token in vocabulary), None)
    if missing or pad is None:
        lacking = ", ".join(missing or template.pads)
        raise CheckpointError(
            f"the base's tokenizer lacks {lacking}, which template {name!r} needs; "
            "choose a base of this family or another template"
        )
    tokenizer.chat_template = template.text
    tokenizer.eos_token = template.end_of_turn
    tokenizer.pad_token = pad
    tokenizer.padding_side = "right"


def to_messages(dialogue: Dialogue, system: str | None) -> list[Message]:
    """The dialogue in the roles that models know, after an optional system message."""
    start = [{"role": "system", "content": system}] if system else []
    return start + [{"role": ROLES[turn.speaker], "content": turn.text} for turn in dialogue.turns]


def render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, answer_next: bool) -> str:
    """The text that a model reads; ``answer_next`` opens the operator's turn at its end."""
    spoken = spoken_only(messages, _markup(tokenizer, str(tokenizer.chat_template)))
    text = tokenizer.apply_chat_template(spoken, tokenize=False, add_generation_prompt=answer_next)
    return str(text)


def spoken_only(messages: Sequence[Message], markup: re.Pattern[str]) -> list[Message]:
    """``messages`` in which no words are ``markup``: what a caller types must not end a turn or open another.

    A space parts what would be read as one token. Texts of the training never hold any, so their tokens stay the same.
    """

    def parted(text: str) -> str:
        while markup.search(text):
            text = markup.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text)
        return text

    return [{**message, "content": parted(message["content"])} for message in messages]


def control_pattern(special: Iterable[str]) -> re.Pattern[str]:
    """What a runtime would read as markup: its vocabulary's ``special`` tokens, and what templates spell."""
    marks = sorted({token for token in special if len(token) > 1}, key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, marks), MARKUP.pattern]))


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids from which a model writes the operator's next turn."""
    if messages:
        return _ids(render(messages, tokenizer, answer_next=True), tokenizer)
    # transformers renders no empty chat: a call that the operator opens begins with what stands before any answer
    alone = render([{"role": "assistant", "content": "\x01"}], tokenizer, answer_next=False)
    return _ids(alone[: alone.index("\x01")].removesuffix(" "), tokenizer)


def encode(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> Encoded:
    """Token ids of the whole dialogue, and labels on the operator's words and end-of-turn tokens alone.

    Every prompt of the dialogue must tokenise to a prefix of the whole: then the model meets in use
    exactly the ids it was trained on. Raises :class:`PromptError` otherwise, and for turns that hold
    the markup itself.
    """
    _refuse_markup(dialogue, tokenizer)
    try:
        input_ids, labels = encode_messages(to_messages(dialogue, system), tokenizer)
    except PromptError as error:
        raise PromptError(f"dialogue {dialogue.id}: {error}") from None
    return Encoded(dialogue.id, input_ids, labels)


def encode_messages(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids and labels of a chat, both of the same length; raises :class:`PromptError` as :func:`encode` does.

    A model learns to stop from the end-of-turn token alone, so each answer must be closed by it.
    """
    input_ids = _ids(render(messages, tokenizer, answer_next=False), tokenizer)
    labels = [IGNORE] * len(input_ids)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = prompt_ids(messages[:index], tokenizer)
        if input_ids[: len(before)] != before:
            raise PromptError("the template and the tokenizer merge text across the start of a turn")
        try:
            end = input_ids.index(tokenizer.eos_token_id, len(before)) + 1
        except ValueError:
            raise PromptError(f"no {tokenizer.eos_token} closes an answer, so the model would never learn to stop") from None
        labels[len(before) : end] = input_ids[len(before) : end]
    return input_ids, labels


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False)
    return list(encoded["input_ids"])


def _refuse_markup(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> None:
    """A turn must not hold the markup that separates turns, nor a stop string of GPT4All."""
    control_text = _control_text(tokenizer, str(tokenizer.chat_template))
    for number, turn in enumerate(dialogue.turns):
        found = control_text.search(turn.text)
        if found is not None:
            raise PromptError(
                f"dialogue {dialogue.id}: turn {number} holds the control text {found.group()!r}; remove it from the call"
            )


@lru_cache(maxsize=2)
def _markup(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    """The special tokens of ``tokenizer``, and the markup that ``template`` spells with ordinary ones."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return control_pattern(special | set(MARKUP.findall(template)))


@lru_cache(maxsize=2)
def _control_text(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    """The markup that a chat would have parted, and stop strings: a text of the training is refused, never changed."""
    return re.compile("|".join([_markup(tokenizer, template).pattern, *map(re.escape, STOP_STRINGS)]))
