"""From what a check found to a verdict: each function compares with the reference and makes the rows of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.export.proof.checks import Check
from llmft.export.proof.gguf_file import GgufFile
from llmft.export.proof.lines import kind_of

FLOAT_TYPES = (0, 1, 32)  # general.file_type of F32, F16 and BF16 files
EXACT_TYPES = (0, 1)  # of those that are held to the strict bounds; bfloat16 rounds as coarsely as Q8_0
Q8_0 = 7
STRICT_KL, STRICT_TOP1 = 1e-3, 0.99  # a flaw of conversion is a hundred times larger, rounding a hundred times smaller
Q8_0_KL = 0.02
COARSE_TOP1 = 0.60  # four bits: reported rather than judged; below this the file is broken
STRICT_PERPLEXITY = 1.01  # times the reference's
TIE_LOGITS = 0.05  # two tokens this close may change places by float16 rounding alone
NAMES = {"llama": "llama-cpp-python", "gpt4all": "gpt4all 2.8.2"}

Found = Mapping[str, Any]


def failure(name: str, threshold: str, error: Exception | str) -> Check:
    """A check whose process gave no answer."""
    return Check(name, False, None, threshold, str(error))


def end_token(gguf: GgufFile, reference: Found) -> Check:
    """The token that closes the operator's turn is the file's EOS."""
    wanted = reference["eos_token"]
    return Check(
        "end token",
        gguf.eos_token == wanted,
        gguf.eos_token,
        f"= {wanted}",
        "the only token at which GPT4All ends an answer",
    )


def templates(gguf: GgufFile, rows: Sequence[Found], llama_texts: Sequence[str] | None, desktop: Found) -> list[Check]:
    """One text in transformers, llama-cpp-python and GPT4All, but for the first token, which the desktop adds itself."""
    own = gguf.bos_token if gguf.add_bos else ""
    same = 0
    for place, row in enumerate(rows):
        alike = llama_texts is None or row["text"] == llama_texts[place]
        same += alike and row["text"].removeprefix(own) == desktop["texts"][place]
    engines = "transformers, GPT4All's rules" + (", llama-cpp-python" if llama_texts is not None else "")
    faults = desktop["faults"]
    linted = Check(
        "template, GPT4All's Jinja",
        not faults,
        f"{len(faults)} unknown" if faults else "nothing unknown",
        "nothing unknown",
        faults[0] if faults else "every filter, test, function and method is in minja's language",
    )
    return [_out_of("template", same, len(rows), "dialogues", f"one text in {engines}"), linted]


def tokens(runtime: str, rows: Sequence[Found], lines: Sequence[list[int]], found: Found) -> list[Check]:
    """Ids of each dialogue and line equal transformers'."""
    name, line_name = f"tokens, {NAMES[runtime]}", f"lines, {NAMES[runtime]}"
    if found["ids"] is None:
        detail = "its tokenizer is not exported on this system; the greedy check stands for it"
        return [Check(name, True, None, f"{len(rows)} of {len(rows)} dialogues", detail)]
    same = [row["ids"] == other for row, other in zip(rows, found["ids"], strict=True)]
    detail = "ids equal transformers'" if all(same) else f"dialogue {same.index(False) + 1} has other ids"
    alike = [one == other for one, other in zip(lines, found["lines"], strict=True)]
    words = "accents, emoji, digits, code, right to left, white space; what is said"
    if not all(alike):
        words = f"line {alike.index(False) + 1} ({kind_of(alike.index(False))}) is cut otherwise"
    return [
        _out_of(name, sum(same), len(same), "dialogues", detail),
        _out_of(line_name, sum(alike), len(alike), "lines", words),
    ]


def first_tokens(gguf: GgufFile, runtimes: Sequence[Sequence[list[int]]]) -> Check:
    """How many first tokens a prompt begins with, in every runtime."""
    due = 1 if gguf.add_bos else 0
    counts = sorted({_leading(ids, gguf.bos_id) for runtime in runtimes for ids in runtime})
    detail = f"leading {gguf.bos_token!r} in {len(runtimes)} runtimes"
    return Check("first token", counts == [due], ", ".join(map(str, counts)), f"{due} everywhere", detail)


def _leading(ids: list[int], token: int) -> int:
    return next((count for count, found in enumerate(ids) if found != token), len(ids))


def logit_bounds(file_type: int) -> tuple[float, float, float]:
    """Most KL in nats, least top-1, and most perplexity as a factor, for a kind of file."""
    if file_type in EXACT_TYPES:
        return STRICT_KL, STRICT_TOP1, STRICT_PERPLEXITY
    return (Q8_0_KL if file_type in (Q8_0, *FLOAT_TYPES) else math.inf), COARSE_TOP1, math.inf


def logits(prefix: str, file_type: int, reference: Found, found: Found | Exception) -> list[Check]:
    """KL divergence, agreement on the likeliest token and perplexity, with the bounds of the kind of file."""
    kl_bound, top1_bound, factor = logit_bounds(file_type)
    names = (f"{prefix}logits, KL", f"{prefix}logits, top-1")
    due = ("a number" if math.isinf(kl_bound) else f"< {kl_bound:g} nats", f"≥ {top1_bound:.0%}")
    if isinstance(found, Exception):
        return [failure(name, threshold, found) for name, threshold in zip(names, due, strict=True)]
    kl, top1 = found["kl"], found["top1"]
    if not math.isfinite(kl):
        return [failure(name, threshold, "the logits are not numbers") for name, threshold in zip(names, due, strict=True)]
    detail = f"mean over {found['positions']} positions, against the unmerged adapter in float32, {reference['mode']}"
    is_close = kl < kl_bound
    checks = [
        Check(names[0], is_close, kl, due[0], detail),
        Check(names[1], is_close and top1 >= top1_bound, top1, due[1], detail),
    ]
    return checks if reference["loss"] is None else [*checks, _perplexity(prefix, reference, found["loss"], factor)]


def _perplexity(prefix: str, reference: Found, loss: float, factor: float) -> Check:
    measured, own = math.exp(min(loss, 700.0)), math.exp(min(reference["loss"], 700.0))
    threshold = "a number" if math.isinf(factor) else f"≤ {factor:g} × {own:.4g}"
    detail = f"of the operator's words in {len(reference['calls'])} calls; {own:.4g} before the export"
    return Check(f"{prefix}perplexity", math.isfinite(loss) and measured <= own * factor, measured, threshold, detail)


def greedy(gguf: GgufFile, rows: Sequence[Found], answers: Sequence[list[int]]) -> Check:
    """Greedy answers in the gpt4all package; a quantised file needs only to answer."""
    verdicts = [_same_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    equal, ties = verdicts.count("equal"), verdicts.count("tie")
    detail = f"{equal} of {len(rows)} equal transformers' tokens"
    if gguf.file_type not in EXACT_TYPES:
        spoken = sum(bool(answer) for answer in answers)
        return Check(greedy_name(), spoken > 0, f"{spoken} of {len(rows)}", "it answers", detail)
    if ties:
        detail += f", {ties} up to two tokens within {TIE_LOGITS} logits, which rounding may swap"
    return _out_of(greedy_name(), equal + ties, len(rows), "equal", detail)


def greedy_name() -> str:
    """The check's name, by which the model card finds it."""
    return f"greedy, {NAMES['gpt4all']}"


def _same_answer(row: Found, answer: list[int]) -> str:
    """ "equal", "tie" (they part where two tokens were as good as level) or "other"."""
    expected: list[int] = row["answer"]
    if answer == expected:
        return "equal"
    parting = next((i for i, (one, other) in enumerate(zip(expected, answer, strict=False)) if one != other), None)
    if parting is None:  # one of them ended here
        parting = min(len(expected), len(answer))
    is_tie = parting < len(row["rivals"]) and row["rivals"][parting][1] < TIE_LOGITS
    return "tie" if is_tie else "other"


def stops(answers: Sequence[Found], limit: int) -> Check:
    """Whether every answer ends by its end token, and none holds a text at which GPT4All would cut it."""
    stopped = sum(answer["stopped"] for answer in answers)
    cuts = sorted({answer["cut_by"] for answer in answers if answer["cut_by"]})
    detail = f"longest answer {max(answer['tokens'] for answer in answers)} tokens"
    if cuts:
        detail = f"an answer holds {cuts[0]!r}, where GPT4All cuts it; keep it out of the training text"
    measured = f"{stopped} of {len(answers)}"
    return Check("stops", stopped == len(answers) and not cuts, measured, f"all within {limit} tokens", detail)


def _out_of(name: str, good: int, count: int, what: str, detail: str) -> Check:
    return Check(name, good == count, f"{good} of {count}", f"{count} of {count} {what}", detail)
