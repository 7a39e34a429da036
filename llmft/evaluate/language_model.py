"""``llmft evaluate --perplexity``: models as language models, on the operator's last turns of the validation calls.

Perplexity is exp of the mean negative log-probability a token. Divergence is KL(adapter ‖ model), the mean over the same
tokens in nats, both models reading the same ids: what a quant has lost of the adapter, whatever it answers
(as llama.cpp's ``llama-perplexity --kl-divergence`` measures it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, fsum
from pathlib import Path
from typing import Any

import numpy as np

from llmft.dialogue import Dialogue, read_dialogues
from llmft.engine.scoring import HasScorer, LogProbs, Scorer
from llmft.errors import DialogueError, LlmftError
from llmft.evaluate.candidates import Candidate, default_models, find_candidate, find_candidates
from llmft.evaluate.kept import kept_models
from llmft.evaluate.predict import key_of
from llmft.evaluate.progress import counting
from llmft.privacy import keep_private
from llmft.prompt import to_messages
from llmft.recipe import Recipe
from llmft.run import sha256, write_json

FILE = "language-model.json"
MOST_CALLS = 60
VERSION = 1
REFERENCE = "adapter"


def language_quality(recipe: Recipe, models: Sequence[str], *, threads: int | None = None) -> dict[str, Any]:
    """Perplexity of each model and its divergence from the adapter; written to FILE and returned.

    A model whose figures were made of the same files is not asked again. Raises :class:`LlmftError` for a server, and
    :class:`DialogueError` where there are no validation calls.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    path, split = recipe.run.evaluation_dir / FILE, Path(recipe.data.folder) / "validation.jsonl"
    calls = read_dialogues(split)[:MOST_CALLS]
    if not calls:
        raise DialogueError(f"{split} holds no dialogue to measure perplexity on; prepare more calls")
    names = list(models) or default_models(recipe)
    reference = find_candidate(recipe, REFERENCE, threads) if REFERENCE in default_models(recipe) else None
    made_of = reference.identity if reference else {}
    kept, loaded = kept_models(path), None
    for candidate in find_candidates(recipe, names, threads):
        key = key_of(identity=candidate.identity, reference=made_of, calls=sha256(split), version=VERSION)
        if kept.get(candidate.name, {}).get("key") == key:
            continue
        loaded = loaded or (_scorer(reference) if reference else None)
        same = reference is not None and candidate.name == reference.name
        scorer = loaded if same and loaded else _scorer(candidate)
        figures = quality(scorer, None if same else loaded, calls, recipe.data.system, candidate.name)
        kept[candidate.name] = {**figures, "key": key, "made_of": candidate.identity}
        write_json(path, {"models": kept})
    return {"models": kept}


def kept_figures(folder: Path, name: str, made_of: Mapping[str, str]) -> dict[str, float]:
    """What was measured before of a model that is made of the same; empty where nothing was."""
    entry = kept_models(folder / FILE).get(name, {})
    if entry.get("made_of") != dict(made_of):
        return {}
    return {figure: value for figure, value in entry.items() if isinstance(value, int | float)}


def _scorer(candidate: Candidate) -> Scorer:
    engine = candidate.load()
    if not isinstance(engine, HasScorer):
        raise LlmftError(f"model {candidate.name} is a server, which tells no probabilities; measure its file")
    return engine.scorer()


@dataclass
class _Sums:
    """What the tokens add up to."""

    log_probability: list[float] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)
    agreed: int = 0  # tokens whose likeliest is the same


def quality(
    scorer: Scorer, reference: Scorer | None, calls: Sequence[Dialogue], system: str | None, title: str
) -> dict[str, float | int]:
    """Perplexity on ``calls``, and the divergence from ``reference`` where there is one."""
    sums = _Sums()
    with counting(f"{title}: perplexity", len(calls)) as advance:
        for call in calls:
            prompt = scorer.prompt_ids(to_messages(call, system)[:-1])
            ids = scorer.text_ids(call.turns[-1].text)
            (found,) = scorer.distributions(prompt, [ids])
            sums.log_probability += found[np.arange(len(ids)), ids].tolist()
            if reference is not None:
                _compare(sums, reference.distributions(prompt, [ids])[0], found)
            advance()
    tokens = len(sums.log_probability)
    figures: dict[str, float | int] = {"tokens": tokens, "perplexity": exp(-fsum(sums.log_probability) / tokens)}
    if reference is not None:
        figures["divergence"] = fsum(sums.divergence) / tokens
        figures["divergence_p99"] = float(np.quantile(sums.divergence, 0.99))
        figures["same_likeliest_token"] = sums.agreed / tokens
    return figures


def _compare(sums: _Sums, reference: LogProbs, found: LogProbs) -> None:
    """Add a row's divergence; a vocabulary that one side has filled up is compared as far as both go."""
    size = min(reference.shape[1], found.shape[1])
    p, q = reference[:, :size].astype(np.float64), found[:, :size].astype(np.float64)
    sums.divergence += (np.exp(p) * (p - q)).sum(axis=1).tolist()
    sums.agreed += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
