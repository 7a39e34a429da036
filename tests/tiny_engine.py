"""Tiny models that can do something: three calls learned by heart in seconds, as checkpoint, adapter and GGUF."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue, Labels, Triage, Turn
from llmft.export.writer import export_file
from llmft.prompt import encode, install_template, to_messages

SYSTEM = "Triage."
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = {
    "llama3": [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|finetune_right_pad_id|>",
    ],
    "gptj": ["<|endoftext|>", "<|extratoken_1|>"],
}
CALLS = (  # id, what is said, urgency, specialty, code, closing; lengths differ, so that batches are padded
    ("a", "J'ai mal au cœur, ça serre.", "U1", "cardiologie", "R07.4", "J'appelle le 15."),
    ("b", "Une tache brune.", "U3", "dermatologie", "D22.9", "Un rendez-vous sera proposé."),
    ("c", "Mon œil est rouge et il colle depuis hier matin, c'est gênant.", "U2", "ophtalmologie", "H10.9", "Venez aujourd'hui."),
)


def dialogues() -> list[Dialogue]:
    """Three calls, one of them an emergency."""
    return [_dialogue(*call) for call in CALLS]


def _dialogue(name: str, said: str, urgency: str, specialty: str, code: str, closing: str) -> Dialogue:
    triage = Triage(
        urgency=urgency,  # type: ignore[arg-type]
        specialty=specialty,
        icd10=(code,),
        red_flags=(),
        summary="",
        missing_info=(),
        escalate=urgency == "U1",
    )
    return Dialogue(
        schema_version="1",
        id=name,
        family_id=name,
        lang="fr",
        turns=(Turn(speaker="patient", text=said), Turn(speaker="operator", text=f"{closing}\n{triage.as_block()}")),
        labels=Labels(urgency=urgency, specialty=specialty, icd10_primary=code),  # type: ignore[arg-type]
    )


def prompts() -> list[list[dict[str, str]]]:
    """The messages of each call before the operator's last turn."""
    return [to_messages(dialogue, SYSTEM)[:-1] for dialogue in dialogues()]


def tokenizer(template: str) -> Any:
    """A byte-level BPE trained on the three calls, with our template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    llama = template == "llama3"
    bpe = Tokenizer(models.BPE(ignore_merges=llama))
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.pre_tokenizer = split if llama else pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=SPECIAL[template],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([turn.text for dialogue in dialogues() for turn in dialogue.turns], trainer)
    first, end = SPECIAL[template][0], SPECIAL[template][1 if llama else 0]
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=first if llama else None, eos_token=end)
    install_template(made, template)
    return made


def config(template: str, vocabulary: int) -> Any:
    """Two layers of 64 numbers; 512 positions."""
    from transformers import GPTJConfig, LlamaConfig

    if template == "llama3":
        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    return GPTJConfig(
        vocab_size=vocabulary,
        n_embd=64,
        n_layer=2,
        n_head=2,
        rotary_dim=16,
        n_inner=128,
        n_positions=512,
        bos_token_id=None,
        eos_token_id=0,
    )


@dataclass(frozen=True)
class TinyModel:
    """A checkpoint's folder and the chat markup of its family."""

    template: str
    base_dir: Path


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _folder() -> Path:
    """A place for all tests of one session."""
    folder = tempfile.TemporaryDirectory(prefix="llmft-tests-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def learned(template: str) -> TinyModel:
    """The checkpoint that knows the three calls."""
    return make_base(_folder() / f"{template}-learned", template)


@cache
def untaught(template: str) -> TinyModel:
    """A random checkpoint."""
    return make_base(_folder() / f"{template}-random", template, steps=0)


@cache
def adapter(template: str) -> Path:
    """An adapter that teaches the three calls to the random checkpoint."""
    return make_adapter(_folder() / f"{template}-adapter", untaught(template))


@cache
def gguf(template: str, chat_template: str | None = None) -> Path:
    """The learned checkpoint as an F16 GGUF; ``chat_template`` replaces ours, and "" leaves none."""
    if chat_template is None:
        return export_file(learned(template).base_dir, None, _folder() / f"{template}.gguf", "F16", threads=1)
    name = f"{template}-{hashlib.sha256(chat_template.encode()).hexdigest()[:8]}"
    changed = Path(shutil.copytree(learned(template).base_dir, _folder() / name))
    (changed / "chat_template.jinja").unlink()
    if chat_template:
        (changed / "chat_template.jinja").write_text(chat_template, "utf-8")
    return export_file(changed, None, _folder() / f"{name}.gguf", "F16", threads=1)


def make_base(folder: Path, template: str, steps: int = 160) -> TinyModel:
    """A checkpoint that has learned the three calls by heart; ``steps`` 0 leaves it random."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    words = tokenizer(template)
    model = AutoModelForCausalLM.from_config(config(template, len(words)))
    with one_thread():
        _learn(model, words, steps, list(model.parameters()))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return TinyModel(template, folder)


def make_adapter(folder: Path, base: TinyModel, steps: int = 240) -> Path:
    """A LoRA adapter on ``base`` that has learned the three calls, with tokenizer and template beside it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    words = tokenizer(base.template)
    model = AutoModelForCausalLM.from_pretrained(base.base_dir)
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    with one_thread():
        _learn(adapted, words, steps, [parameter for parameter in adapted.parameters() if parameter.requires_grad])
    adapted.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _learn(model: Any, words: Any, steps: int, parameters: list[Any]) -> None:
    import torch

    rows = [encode(dialogue, words, SYSTEM) for dialogue in dialogues()]
    width = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([row.input_ids + [words.pad_token_id] * (width - len(row.input_ids)) for row in rows])
    labels = torch.tensor([row.labels + [-100] * (width - len(row.labels)) for row in rows])
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, steps))
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        falling.step()
    model.eval()
