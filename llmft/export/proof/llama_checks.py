"""What llama-cpp-python makes of a GGUF: tokens, logits, and whether its answers end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmft.errors import MissingExtraError
from llmft.export.proof.reference import read_reference
from llmft.prompt import STOP_STRINGS

POSITIONS_AT_ONCE = 64  # of a vocabulary in float64
SPARE_TOKENS = 16  # context beyond what is asked for, so that no runtime begins to forget

Job = dict[str, Any]


def _llama(path: Path, job: Job, **settings: Any) -> Any:
    try:
        from llama_cpp import Llama
    except ImportError as error:
        raise MissingExtraError("llama_cpp", "export") from error
    threads = {"n_threads": job["threads"], "n_threads_batch": job["threads"]}
    return Llama(model_path=str(path), n_gpu_layers=0, verbose=False, **threads, **settings)


def tokens(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Text and token ids of each dialogue as llama-cpp-python's chat completion makes them, and ids of each line."""
    llm = _llama(gguf_path, job, vocab_only=True)
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    formatter = Jinja2ChatFormatter(
        template=llm.metadata["tokenizer.chat_template"], eos_token=job["eos_token"], bos_token=job["bos_token"]
    )
    answers = [formatter(messages=dialogue) for dialogue in job["dialogues"]]
    ids = [llm.tokenize(answer.prompt.encode(), add_bos=not answer.added_special, special=True) for answer in answers]
    lines = [llm.tokenize((job["line_start"] + line).encode(), add_bos=False, special=True) for line in job["lines"]]
    return {"ids": ids, "texts": [answer.prompt for answer in answers], "lines": lines}


def logits(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Distance of the file's logits from the reference's over dialogues and answers, and its loss on whole calls."""
    facts = read_reference(work_dir)
    rows, calls = facts["rows"], facts["calls"]
    longest = max([len(row["ids"]) + len(row["answer"]) for row in rows] + [len(call["ids"]) for call in calls])
    llm = _llama(gguf_path, job, n_ctx=longest + SPARE_TOKENS, logits_all=True)
    divergence, agreed, positions = 0.0, 0, 0
    for number, row in enumerate(rows):
        found = _all_logits(llm, row["ids"] + row["answer"])
        expected = np.load(work_dir / f"logits-{number}.npy", mmap_mode="r")  # (positions, vocabulary)
        distance, same = _compare(expected, found)
        divergence, agreed, positions = divergence + distance, agreed + same, positions + len(found)
    loss, labels = 0.0, 0
    for call in calls:
        total, count = _loss(_all_logits(llm, call["ids"]), call["labels"])
        loss, labels = loss + total, labels + count
    mean_loss = loss / labels if labels else None
    return {"kl": divergence / positions, "top1": agreed / positions, "positions": positions, "loss": mean_loss}


def _all_logits(llm: Any, ids: list[int]) -> NDArray[np.float32]:
    """Of every position (positions, vocabulary), until the next call."""
    llm.reset()
    llm.eval(ids)
    logits: NDArray[np.float32] = llm.scores[: len(ids)]
    return logits


def _compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, int]:
    """Sum of the Kullback-Leibler divergences of ``found`` from ``expected`` in nats, and how often both prefer one token."""
    divergence, same = 0.0, 0
    for start in range(0, len(found), POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        wanted, got = _log_softmax(expected[part]), _log_softmax(found[part])
        divergence += float((np.exp(wanted) * (wanted - got)).sum())
        same += int((wanted.argmax(1) == got.argmax(1)).sum())
    return divergence, same


def _loss(logits: NDArray[np.float32], labels: list[int]) -> tuple[float, int]:
    """Sum of the losses in nats, and how many labels there are."""
    places = [place for place, label in enumerate(labels[1:]) if label >= 0]
    wanted = [labels[place + 1] for place in places]
    return -float(_log_softmax(logits[places])[range(len(places)), wanted].sum()), len(places)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Over the last axis of (positions, vocabulary)."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def stops(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Whether each answer ends by itself, and whether it holds a text at which GPT4All would cut it."""
    rows, limit = read_reference(work_dir)["rows"], job["stop_tokens"]
    longest = max(len(row["ids"]) for row in rows) + limit
    llm = _llama(gguf_path, job, n_ctx=longest + SPARE_TOKENS)
    results = []
    for row in rows:
        answer: list[int] = []
        for token in llm.generate(row["ids"], temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == llm.token_eos() or len(answer) == limit:
                break
            answer.append(token)
        text = llm.detokenize(answer).decode(errors="replace")
        cut = next((stop for stop in STOP_STRINGS if stop in text), None)
        results.append({"stopped": len(answer) < limit, "tokens": len(answer), "cut_by": cut})
    return {"answers": results}
