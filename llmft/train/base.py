"""The embedded demonstration bases: a small LLaMA and its GPT-J twin, pretrained on our own text.

They are no medical models. They know the words of the bundled knowledge and whose complaint is whose,
as a real base would, and nothing of the triage block, which fine-tuning teaches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError
from llmft.prompt import IGNORE, encode_messages, install_template
from llmft.run import make_folder, manifest, sha256, write_json
from llmft.train.curve import log_metrics, plot_curve
from llmft.train.progress import show_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainingArguments

VOCABULARY = 6144  # tokens, special ones included: most words of the corpus are one token
CONTEXT_TOKENS = 2048  # what the position encoding is declared for
WIDTH, HEADS = 256, 4  # a multiple of 256 lets K-quants apply
LLAMA3_SPLIT = (  # pre-tokenizer of the Llama 3 family
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """What differs between the twins."""

    template: str
    special: tuple[str, ...]  # first the one that separates documents
    bos: str | None
    layers: int
    inner: int


FAMILIES = {
    "llama": Family(
        "llama3",
        (
            "<|end_of_text|>",
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|finetune_right_pad_id|>",
        ),
        bos="<|begin_of_text|>",
        layers=3,
        inner=768,
    ),
    # its attention and MLP stand beside each other, so that a block is one step deep where LLaMA's is two: one block more
    "gptj": Family("gptj", ("<|endoftext|>", "<|extratoken_1|>"), bos=None, layers=4, inner=512),
}


def pretrain(
    name: str,
    corpus_path: Path,
    output_dir: Path,
    *,
    steps: int,
    start_dir: Path | None = None,
    batch_documents: int = 16,
    seed: int = 1,
) -> None:
    """Train the base ``name`` (``llama`` or ``gptj``) on ``corpus_path`` and save it in ``output_dir`` in bfloat16.

    With ``start_dir`` it goes on from that base, at half the rate. Checkpoints lie in ``output_dir.partial``;
    a rerun after a kill goes on from the last one.
    """
    import torch
    from transformers import DataCollatorForSeq2Seq
    from transformers.trainer_utils import get_last_checkpoint

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(name, corpus_path) if start_dir is None else _load_tokenizer(start_dir)
    rows = _rows(name, tokenizer, corpus_path)
    model = build_model(name, tokenizer) if start_dir is None else _load_model(start_dir)
    work_dir = output_dir.with_name(output_dir.name + ".partial")
    make_folder(work_dir)  # or the last step of hours of training would be the first to tell that it cannot
    arguments = _arguments(work_dir, steps, batch_documents, 2e-3 if start_dir is None else 1e-3, seed)
    trainer = _trainer_class()(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorForSeq2Seq(tokenizer))
    show_progress(trainer)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work_dir)) if work_dir.is_dir() else None)
    facts = {
        "base": name,
        "started_from": start_dir and sha256(start_dir / "model.safetensors"),
        "steps": steps,
        "seed": seed,
        "documents": steps * batch_documents,
    }
    _save(model, tokenizer, trainer.state.log_history, output_dir, {**facts, "corpus_sha256": sha256(corpus_path)})


def _arguments(work_dir: Path, steps: int, batch_documents: int, learning_rate: float, seed: int) -> TrainingArguments:
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(work_dir),
        max_steps=steps,
        per_device_train_batch_size=batch_documents,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(100, steps // 10),
        weight_decay=0.05,
        adam_beta2=0.98,
        train_sampling_strategy="group_by_length",  # least padding
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=50,
        save_steps=500,
        save_total_limit=1,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
    )


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _load_model(folder: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def _trainer_class() -> type[Trainer]:
    """A ``Trainer`` whose head sees the trained positions alone: on a CPU 1.7 times as fast."""
    from torch.nn.functional import cross_entropy
    from transformers import Trainer

    class AnswerTrainer(Trainer):
        """Next-token loss over the labels that are not ``IGNORE``."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            """The mean loss of a batch."""
            labels = inputs.pop("labels")[:, 1:]
            hidden = model.base_model(**inputs).last_hidden_state[:, :-1]
            trained = labels != IGNORE
            loss = cross_entropy(model.get_output_embeddings()(hidden[trained]).float(), labels[trained])
            return (loss, None) if return_outputs else loss

    return AnswerTrainer


def _save(model: PreTrainedModel, tokenizer: Any, history: list[dict[str, Any]], output_dir: Path, facts: dict[str, Any]) -> None:
    import torch

    make_folder(output_dir)
    model.to(torch.bfloat16).save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    log_metrics(history, output_dir / "metrics.jsonl")
    plot_curve(output_dir / "metrics.jsonl", output_dir / "loss.png", title=f"Pretraining of the embedded base: {facts['base']}")
    write_json(output_dir / "manifest.json", manifest(**facts))


def train_tokenizer(name: str, corpus_path: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the family's kind, learnt from the corpus."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama"))
    if name == "llama":
        split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(family.special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus_path), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=family.bos, eos_token=family.special[0], clean_up_tokenization_spaces=False
    )
    install_template(fast, family.template)
    return fast


def build_model(name: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained model of ``name`` for ``tokenizer``."""
    from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if name == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                num_hidden_layers=FAMILIES[name].layers,
                num_attention_heads=HEADS,
                num_key_value_heads=HEADS,
                intermediate_size=FAMILIES[name].inner,
                max_position_embeddings=CONTEXT_TOKENS,
                tie_word_embeddings=True,
                **ids,
            )
        )
    return GPTJForCausalLM(
        GPTJConfig(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=FAMILIES[name].layers,
            n_head=HEADS,
            n_inner=FAMILIES[name].inner,
            rotary_dim=WIDTH // HEADS // 2,
            n_positions=CONTEXT_TOKENS,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=True,
            **ids,
        )
    )


def _documents(corpus_path: Path) -> Iterator[dict[str, Any]]:
    try:
        with corpus_path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"corpus {corpus_path} cannot be read ({error}); write it with: llmft synthesize --corpus"
        ) from None


def _texts(corpus_path: Path) -> Iterator[str]:
    """What the tokenizer learns from: every text, and every turn of the chats."""
    for document in _documents(corpus_path):
        yield from [document["text"]] if "text" in document else [message["content"] for message in document["messages"]]


def _rows(name: str, tokenizer: PreTrainedTokenizerFast, corpus_path: Path) -> list[dict[str, list[int]]]:
    """One row a document, never packed: beside strangers a small model does not find what belongs together.

    Of a chat the answers are trained: what callers happen to say cannot be foretold, and at this size
    the noise of trying drowns what there is to learn.
    """
    from rich.progress import track

    documents = list(_documents(corpus_path))
    return [_row(FAMILIES[name], tokenizer, document) for document in track(documents, description="encoding", transient=True)]


def _row(family: Family, tokenizer: PreTrainedTokenizerFast, document: dict[str, Any]) -> dict[str, list[int]]:
    """The document between the tokens that open and close it."""
    if "text" in document:
        text = (family.bos or "") + document["text"] + family.special[0]
        input_ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return {"input_ids": input_ids, "labels": list(input_ids)}
    input_ids, labels = encode_messages(document["messages"], tokenizer)
    return {"input_ids": input_ids, "labels": labels}
