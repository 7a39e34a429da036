"""Proof that a GGUF is the model that was trained: same tokens, same logits, same words, and an end.

Everything is compared with base plus *unmerged* adapter in transformers, float32. Each runtime is asked in
a process of its own with a time limit; if C++ aborts there, that is a failed check and nothing more.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmft.errors import VerifyError
from llmft.export.proof.child import Child, ChildFailure
from llmft.export.proof.gguf_file import GgufFile, read_gguf
from llmft.export.template import render
from llmft.export.vocabulary.tokenizer import tokenizer_folder

Dialogue = list[dict[str, str]]

FLOAT_TYPES = (0, 1)  # general.file_type of F32 and F16 files, which are held to the strict bounds
Q8_0 = 7
STRICT_KL, STRICT_TOP1 = 1e-3, 0.99  # a flaw of conversion is a hundred times larger, rounding a hundred times smaller
Q8_0_KL = 0.02
COARSE_TOP1 = 0.60  # four bits: reported rather than judged; below this the file is broken
TIE_LOGITS = 0.05  # two tokens this close may change places by float16 rounding alone
STOP_TOKENS = 256
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
class Check:
    """One thing that was measured; ``measured`` is None when the runtime gave no answer."""

    name: str
    passed: bool
    measured: float | str | None
    threshold: str
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of one file."""

    file: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For verify.json."""
        return {"file": self.file, "passed": self.passed, "checks": [asdict(check) for check in self.checks]}


def verify(
    gguf_path: Path,
    base_dir: Path,
    adapter_dir: Path | None,
    dialogues: Sequence[Dialogue] = (),
    *,
    reference_f16: Path | None = None,
    require_stop: bool = True,
    threads: int | None = None,
    time_limit_s: float = 600.0,
) -> Report:
    """Compare ``gguf_path`` with the model it was made from, on ``dialogues`` that end before an assistant's turn.

    ``reference_f16`` is the F16 file of the same export: at four bits a lost adapter can hide in the noise,
    so that file's logits are held to the strict bounds as well. ``require_stop=False`` is for models that were
    never trained to end. Raises VerifyError when the file is no whole GGUF or the reference cannot be computed.
    """
    gguf = read_gguf(gguf_path)
    if reference_f16 is not None:
        read_gguf(reference_f16)
    chats = list(dialogues) or list(BUILT_IN)
    threads = threads or _threads()
    job = {
        "base": str(base_dir.resolve()),
        "adapter": None if adapter_dir is None else str(adapter_dir.resolve()),
        "tokenizer": str(tokenizer_folder(base_dir, [] if adapter_dir is None else [adapter_dir]).resolve()),
        "dialogues": chats,
        "desktop_texts": [_desktop_text(gguf, chat) for chat in chats],
        "bos_token": gguf.bos_token,
        "eos_token": gguf.eos_token,
        "threads": threads,
        "stop_tokens": STOP_TOKENS if require_stop else 1,
    }
    child = Child(_work_dir(job), gguf_path.resolve(), threads, time_limit_s)
    (child.work_dir / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return Report(gguf_path.name, tuple(_all_checks(child, gguf, reference_f16, require_stop)))


def _threads() -> int:
    """One core stays free: ggml's threads wait for each other by spinning, ten times slower on a busy machine."""
    return max(1, min(2, (os.cpu_count() or 1) - 1))


def _work_dir(job: dict[str, Any]) -> Path:
    """A private folder for the children; files of one export share it, and so the reference in it."""
    stamps = [
        path.stat().st_mtime_ns
        for key in ("base", "adapter", "tokenizer")
        if job[key] is not None
        for path in sorted(Path(job[key]).iterdir())
    ]
    return Path(_shared_folder(json.dumps([job["base"], job["adapter"], job["dialogues"], stamps])).name)


@lru_cache(maxsize=1)
def _shared_folder(identity: str) -> tempfile.TemporaryDirectory[str]:
    """Removed when another model is verified, or when the process ends."""
    return tempfile.TemporaryDirectory(prefix="llmft-verify-")


def _desktop_text(gguf: GgufFile, chat: Dialogue) -> str:
    names = {"bos_token": gguf.bos_token, "eos_token": gguf.eos_token}
    return render(gguf.chat_template, chat, desktop=True, **names)


def _all_checks(child: Child, gguf: GgufFile, reference_f16: Path | None, require_stop: bool) -> list[Check]:
    try:
        if not (child.work_dir / "reference.json").is_file():
            child.run("reference")
        reference = json.loads((child.work_dir / "reference.json").read_text(encoding="utf-8"))
    except ChildFailure as error:
        raise VerifyError(f"the model itself could not be run in transformers: {error}") from error
    rows = reference["rows"]
    checks = [_end_token(gguf, reference), *_tokens(child, gguf, rows)]
    if reference_f16 is not None:
        checks += _logits(child, 1, reference_f16.resolve(), "F16 ")
    checks += _logits(child, gguf.file_type, None, "")
    checks.append(_greedy(child, gguf, rows))
    if require_stop:
        checks.append(_stops(child))
    return checks


def _end_token(gguf: GgufFile, reference: dict[str, Any]) -> Check:
    wanted = reference["eos_token"]
    detail = "the only token at which GPT4All ends an answer"
    return Check("end token", gguf.eos_token == wanted, gguf.eos_token, f"= {wanted}", detail)


def _tokens(child: Child, gguf: GgufFile, rows: list[dict[str, Any]]) -> list[Check]:
    """Token ids of each rendered dialogue in the three runtimes, and how many first tokens each has."""
    expected = [row["ids"] for row in rows]
    checks, seen = [], [expected]
    runtimes = (("llama_tokens", "llama-cpp-python"), ("gpt4all_tokens", "gpt4all 2.8.2"))
    for check, runtime in runtimes:
        name, threshold = f"tokens, {runtime}", f"{len(expected)} of {len(expected)} dialogues"
        try:
            found = child.run(check)["ids"]
        except ChildFailure as error:
            checks.append(Check(name, False, None, threshold, str(error)))
            continue
        if found is None:
            detail = "its tokenizer is not exported on this system; the greedy check stands for it"
            checks.append(Check(name, True, None, threshold, detail))
            continue
        seen.append(found)
        same = [one == other for one, other in zip(expected, found, strict=True)]
        detail = "ids equal transformers'" if all(same) else f"dialogue {same.index(False) + 1} has other ids"
        checks.append(Check(name, all(same), f"{sum(same)} of {len(same)}", threshold, detail))
    return [*checks, _first_tokens(gguf, seen)]


def _first_tokens(gguf: GgufFile, runtimes: list[list[list[int]]]) -> Check:
    due = 1 if gguf.add_bos else 0
    counts = sorted({_leading(ids, gguf.bos_id) for runtime in runtimes for ids in runtime})
    detail = f"leading {gguf.bos_token!r} in {len(runtimes)} runtimes"
    return Check("first token", counts == [due], ", ".join(map(str, counts)), f"{due} everywhere", detail)


def _leading(ids: list[int], token: int) -> int:
    return next((count for count, found in enumerate(ids) if found != token), len(ids))


def _logits(child: Child, file_type: int, other: Path | None, prefix: str) -> list[Check]:
    """KL divergence and agreement on the likeliest token, with the bounds of the kind of file."""
    if file_type in FLOAT_TYPES:
        kl_bound, top1_bound = STRICT_KL, STRICT_TOP1
    else:
        kl_bound, top1_bound = Q8_0_KL if file_type == Q8_0 else float("inf"), COARSE_TOP1
    names = (f"{prefix}logits, KL", f"{prefix}logits, top-1")
    kl_words = "a number" if kl_bound == float("inf") else f"< {kl_bound:g} nats"
    thresholds = (kl_words, f"≥ {top1_bound:.0%}")
    try:
        found = child.run("llama_logits", other)
    except ChildFailure as error:
        return [Check(name, False, None, threshold, str(error)) for name, threshold in zip(names, thresholds, strict=True)]
    kl, top1 = found["kl"], found["top1"]
    if not math.isfinite(kl):
        return [Check(name, False, None, due, "the logits are not numbers") for name, due in zip(names, thresholds, strict=True)]
    detail = f"mean over {found['positions']} positions, against the unmerged adapter in float32"
    kl_passed = kl < kl_bound
    return [
        Check(names[0], kl_passed, kl, thresholds[0], detail),
        Check(names[1], kl_passed and top1 >= top1_bound, top1, thresholds[1], detail),
    ]


def _greedy(child: Child, gguf: GgufFile, rows: list[dict[str, Any]]) -> Check:
    """Greedy answers in the gpt4all package; a quantised file needs only to answer."""
    name, strict = "greedy, gpt4all 2.8.2", gguf.file_type in FLOAT_TYPES
    threshold = f"{len(rows)} of {len(rows)} equal" if strict else "it answers"
    try:
        answers = child.run("gpt4all_greedy")["answers"]
    except ChildFailure as error:
        return Check(name, False, None, threshold, str(error))
    verdicts = [_same_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    equal, ties = verdicts.count("equal"), verdicts.count("tie")
    detail = f"{equal} of {len(rows)} equal transformers' tokens"
    if not strict:
        spoken = sum(bool(answer) for answer in answers)
        return Check(name, spoken > 0, f"{spoken} of {len(rows)}", threshold, detail)
    if ties:
        detail += f", {ties} up to two tokens within {TIE_LOGITS} logits, which rounding may swap"
    return Check(name, equal + ties == len(rows), f"{equal + ties} of {len(rows)}", threshold, detail)


def _same_answer(row: dict[str, Any], answer: list[int]) -> str:
    """ "equal", "tie" (they part where two tokens were as good as level) or "other"."""
    expected: list[int] = row["answer"]
    if answer == expected:
        return "equal"
    parting = next((i for i, (one, other) in enumerate(zip(expected, answer, strict=False)) if one != other), None)
    if parting is None:  # one of them ended here
        parting = min(len(expected), len(answer))
    is_tie = parting < len(row["rivals"]) and row["rivals"][parting][1] < TIE_LOGITS
    return "tie" if is_tie else "other"


def _stops(child: Child) -> Check:
    """Whether every answer ends by its end token, and none holds a text at which GPT4All would cut it."""
    threshold = f"all within {STOP_TOKENS} tokens"
    try:
        answers = child.run("llama_stops")["answers"]
    except ChildFailure as error:
        return Check("stops", False, None, threshold, str(error))
    stopped = sum(answer["stopped"] for answer in answers)
    cuts = sorted({answer["cut_by"] for answer in answers if answer["cut_by"]})
    detail = f"longest answer {max(answer['tokens'] for answer in answers)} tokens"
    if cuts:
        detail = f"an answer holds {cuts[0]!r}, where GPT4All cuts it; keep it out of the training text"
    return Check("stops", stopped == len(answers) and not cuts, f"{stopped} of {len(answers)}", threshold, detail)


def print_report(report: Report) -> None:
    """The checks as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.file}: {'verified' if report.passed else 'NOT the model that was trained'}")
    for column in ("check", "", "measured", "due", "detail"):
        table.add_column(column)
    for check in report.checks:
        measured = f"{check.measured:.3g}" if isinstance(check.measured, float) else check.measured or "–"
        mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
        table.add_row(check.name, mark, measured, check.threshold, check.detail)
    Console().print(table)
