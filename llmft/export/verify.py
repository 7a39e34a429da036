"""Proof that a GGUF is the model that was trained: same text, same tokens, same logits, same words, and an end.

Everything is compared with base plus *unmerged* adapters in transformers, float32. Each check is a process of its own
with a time limit; if C++ aborts there, that is a failed check and nothing more.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmft.errors import VerifyError
from llmft.export.delivery.desktop import ARCHITECTURES, SPLITTINGS
from llmft.export.proof import judge
from llmft.export.proof.checks import Check, Report
from llmft.export.proof.child import Child, ChildFailure
from llmft.export.proof.gguf_file import GgufFile, read_gguf
from llmft.export.proof.lines import compared_lines
from llmft.export.vocabulary.tokenizer import tokenizer_folder

Dialogue = list[dict[str, str]]

STOP_TOKENS = 256
PYTHON_LACKS = ("tekken", "smollm")  # splittings that the desktop knows and the older Python package does not
PYTHON_GEMMA2_LAYERS = (42, 46)  # for others the Python package aborts
BUILT_IN: tuple[Dialogue, ...] = (
    [{"role": "user", "content": "Bonjour, j'ai très mal à la poitrine depuis 2 h, ça serre. 😟"}],
    [{"role": "user", "content": "Hello, my 3-month-old baby's fever is 39.5 °C and she won't drink…"}],
    [
        {"role": "system", "content": "Tu es l'opérateur d'un centre d'appels médical."},
        {"role": "user", "content": "Ma mère est tombée dans l'escalier."},
        {"role": "assistant", "content": "Est-elle consciente ? Quel âge a-t-elle ?"},
        {"role": "user", "content": "Oui, elle parle.\n82 ans (sous anticoagulants)."},
    ],
)


@dataclass(frozen=True)
class Texts:
    """What a file is asked: chats that end before an assistant's turn, whole calls, and lines beside those made here."""

    chats: Sequence[Dialogue] = ()
    calls: Sequence[Dialogue] = ()  # their operator's words give the perplexity
    said: Sequence[str] = ()  # lines for the tokenizers


@dataclass(frozen=True)
class Limits:
    """How a file is asked."""

    require_stop: bool = True  # False for models that were never trained to end
    threads: int | None = None
    time_limit_s: float = 600.0
    mapped: bool | None = None  # the reference's weights stay in their files; None: when they would crowd the memory


NO_TEXTS, DEFAULTS = Texts(), Limits()


def verify(
    gguf_path: Path,
    base_dir: Path,
    adapter_dirs: Sequence[Path],
    texts: Texts = NO_TEXTS,
    *,
    shares: Sequence[float] = (),
    reference_f16: Path | None = None,
    limits: Limits = DEFAULTS,
) -> Report:
    """Compare ``gguf_path`` with the model it was made from.

    ``shares`` weigh the adapters, 1 each when empty. ``reference_f16`` is the F16 file of the same export: at four bits a
    lost adapter can hide in the noise, so that file's logits are held to the strict bounds as well. Raises VerifyError
    when the file is no whole GGUF or the reference cannot be computed.
    """
    missing = next((folder for folder in (base_dir, *adapter_dirs) if not folder.is_dir()), None)
    if missing is not None:
        raise VerifyError(f"{missing} is no folder; give the base and the adapter that {gguf_path.name} was made from")
    gguf = read_gguf(gguf_path)
    if reference_f16 is not None:
        read_gguf(reference_f16)
    threads = limits.threads or _threads()
    chats = list(texts.chats) or list(BUILT_IN)
    said = [message["content"] for chat in (*chats, *texts.calls) for message in chat]
    job = {
        "base": str(base_dir.resolve()),
        "adapters": [str(folder.resolve()) for folder in adapter_dirs],
        "shares": list(shares) or [1.0] * len(adapter_dirs),
        "tokenizer": str(tokenizer_folder(base_dir, adapter_dirs).resolve()),
        "dialogues": chats,
        "calls": list(texts.calls),
        "lines": compared_lines([*said, *texts.said]),
        "line_start": gguf.bos_token or gguf.eos_token,  # Phi-3's end token would eat the blanks after it
        "mapped": limits.mapped,
        "threads": threads,
    }
    child = Child(_work_dir(job), gguf_path.resolve(), threads, limits.time_limit_s)
    reference = _reference(child, job)
    job |= {
        "dialogues": chats[: len(reference["rows"])],
        "answer_tokens": reference["answer_tokens"],
        "stop_tokens": STOP_TOKENS if limits.require_stop else 1,
        "template": gguf.chat_template,
        "bos_token": gguf.bos_token,
        "eos_token": gguf.eos_token,
    }
    return Report(gguf_path.name, tuple(_all_checks(child, gguf, job, reference, reference_f16, limits)))


def _threads() -> int:
    """One core stays free: ggml's threads wait for each other by spinning, ten times slower on a busy machine."""
    return max(1, min(2, (os.cpu_count() or 1) - 1))


def _work_dir(job: dict[str, Any]) -> Path:
    """A private folder for the children; files of one export share it, and so the reference in it."""
    folders = [job["base"], *job["adapters"], job["tokenizer"]]
    stamps = [path.stat().st_mtime_ns for folder in folders for path in sorted(Path(folder).iterdir())]
    return Path(_shared_folder(json.dumps([job, stamps])).name)


@lru_cache(maxsize=1)
def _shared_folder(identity: str) -> tempfile.TemporaryDirectory[str]:
    """Removed when another model is verified, or when the process ends."""
    return tempfile.TemporaryDirectory(prefix="llmft-verify-")


def _ask(child: Child, job: dict[str, Any]) -> None:
    (child.work_dir / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _reference(child: Child, job: dict[str, Any]) -> dict[str, Any]:
    path = child.work_dir / "reference.json"
    if not path.is_file():
        _ask(child, job)
        try:
            path.write_text(json.dumps(child.run("reference")), encoding="utf-8")
        except ChildFailure as error:
            raise VerifyError(f"the model itself could not be run in transformers: {error}") from error
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _all_checks(
    child: Child, gguf: GgufFile, job: dict[str, Any], reference: dict[str, Any], reference_f16: Path | None, limits: Limits
) -> list[Check]:
    rows, unknown = reference["rows"], _unknown_to_gpt4all(gguf)
    _ask(child, {**job, "desktop_texts": []})
    desktop = _found(child, "template")
    _ask(child, {**job, "desktop_texts": [] if isinstance(desktop, ChildFailure) else desktop["texts"]})
    in_llama = _found(child, "llama_tokens")
    in_gpt4all = ChildFailure(unknown) if unknown else _found(child, "gpt4all_tokens")
    checks = [judge.end_token(gguf, reference), *_templates(gguf, rows, in_llama, desktop)]
    checks += _tokens(reference, {"llama": in_llama, "gpt4all": in_gpt4all}, unknown)
    runtimes = [found["ids"] for found in (in_llama, in_gpt4all) if isinstance(found, dict) and found["ids"] is not None]
    checks.append(judge.first_tokens(gguf, [[row["ids"] for row in rows], *runtimes]))
    if reference_f16 is not None:
        checks += judge.logits("F16 ", 1, reference, _found(child, "llama_logits", reference_f16.resolve()))
    checks += judge.logits("", gguf.file_type, reference, _found(child, "llama_logits"))
    checks.append(_greedy(child, gguf, rows, unknown))
    return [*checks, _stops(child)] if limits.require_stop else checks


def _found(child: Child, check: str, gguf_path: Path | None = None) -> Any:
    """What a check found, or the ChildFailure that it ended in."""
    try:
        return child.run(check, gguf_path)
    except ChildFailure as error:
        return error


def _unknown_to_gpt4all(gguf: GgufFile) -> str:
    """Why GPT4All cannot run the file at all; empty where it can. Such a file is for llama.cpp, and no worse for it."""
    if gguf.architecture not in ARCHITECTURES:
        return f"GPT4All does not know {gguf.architecture}; a file for llama.cpp"
    if gguf.splitting not in SPLITTINGS or gguf.splitting in PYTHON_LACKS:
        return f"gpt4all 2.8.2 does not know the pre-tokenizer {gguf.splitting!r}"
    if gguf.architecture == "gemma2" and gguf.layers not in PYTHON_GEMMA2_LAYERS:
        return f"gpt4all 2.8.2 aborts on a Gemma 2 of {gguf.layers} layers"
    return ""


def _templates(gguf: GgufFile, rows: Sequence[Any], in_llama: Any, desktop: Any) -> list[Check]:
    if isinstance(desktop, ChildFailure):
        return [judge.failure("template", f"{len(rows)} of {len(rows)} dialogues", desktop)]
    checks = judge.templates(gguf, rows, None if isinstance(in_llama, ChildFailure) else in_llama["texts"], desktop)
    return checks if gguf.architecture in ARCHITECTURES else checks[:1]


def _tokens(reference: dict[str, Any], found: dict[str, Any], unknown: str) -> list[Check]:
    rows, checks = reference["rows"], []
    for runtime, answer in found.items():
        name, due = f"tokens, {judge.NAMES[runtime]}", f"{len(rows)} of {len(rows)} dialogues"
        if isinstance(answer, ChildFailure):
            is_excused = runtime == "gpt4all" and bool(unknown)
            checks.append(Check(name, is_excused, None, due, str(answer)))
        else:
            checks += judge.tokens(runtime, rows, reference["lines"], answer)
    return checks


def _greedy(child: Child, gguf: GgufFile, rows: Sequence[Any], unknown: str) -> Check:
    if unknown:
        return Check(judge.greedy_name(), True, None, "not asked", unknown)
    found = _found(child, "gpt4all_greedy")
    if isinstance(found, ChildFailure):
        return judge.failure(judge.greedy_name(), "it answers", found)
    return judge.greedy(gguf, rows, found["answers"])


def _stops(child: Child) -> Check:
    found = _found(child, "llama_stops")
    if isinstance(found, ChildFailure):
        return judge.failure("stops", f"all within {STOP_TOKENS} tokens", found)
    return judge.stops(found["answers"], STOP_TOKENS)
