"""Dialogue ─▶ messages ─▶ token ids and labels: the only code that renders or masks.

The same text reaches the model in training, evaluation, GPT4All and llama.cpp: one template a family,
in the Jinja subset that all runtimes share, with one BOS everywhere and the end-of-turn token as EOS.
Labels are the operator's tokens and the end-of-turn token, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue
from llmft.errors import CheckpointError, PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # label of a token that the loss does not see
ROLES = {"patient": "user", "operator": "assistant"}
Message = dict[str, str]  # {"role": "system|user|assistant", "content": …}

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


TEMPLATES = {
    "llama3": Template(
        "llama3.jinja",
        end_of_turn="<|eot_id|>",
        pads=("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"),
        markers=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    ),
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
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer_next)
    return str(text)


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids from which a model writes the operator's next turn."""
    return _ids(render(messages, tokenizer, answer_next=True), tokenizer)


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
    """Token ids and labels of a chat, both of the same length; raises :class:`PromptError` as :func:`encode` does."""
    input_ids = _ids(render(messages, tokenizer, answer_next=False), tokenizer)
    labels = [IGNORE] * len(input_ids)
    end = str(tokenizer.eos_token)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = prompt_ids(messages[:index], tokenizer)
        said = render(messages[: index + 1], tokenizer, answer_next=False)
        after = _ids(said[: said.rindex(end) + len(end)], tokenizer)
        if input_ids[: len(before)] != before or input_ids[: len(after)] != after:
            raise PromptError("the template and the tokenizer merge text across the start of a turn")
        labels[len(before) : len(after)] = input_ids[len(before) : len(after)]
    return input_ids, labels


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False)
    return list(encoded["input_ids"])


def _refuse_markup(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> None:
    """A turn must not hold the tokens that separate turns, nor a stop string of GPT4All."""
    special = [token for token in tokenizer.get_added_vocab() if token.strip()]
    for number, turn in enumerate(dialogue.turns):
        found = next((mark for mark in (*special, *STOP_STRINGS) if mark in turn.text), None)
        if found is not None:
            raise PromptError(f"dialogue {dialogue.id}: turn {number} holds the control text {found!r}; remove it from the call")
