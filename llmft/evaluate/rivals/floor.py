"""Two floors: the commonest answer for every call, and TF-IDF with logistic regression (scikit-learn).

The regression reads what the model reads, is taught on the prepared set's train split alone, and its one setting is
chosen on the validation split.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmft.dialogue import Dialogue
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.evaluate.rivals.calls import Taught, classified, text_of

FIELDS = ("urgency", "specialty", "icd10")
STRENGTHS = (3.0, 30.0)  # inverse regularisation that is tried
MIN_CALLS, MOST_STEPS = 2, 200  # calls that a word must occur in; optimiser steps


def label_of(truth: Verdict, field: str) -> str:
    """A field of the truth as one label; no code is a label of its own."""
    if field == "icd10":
        return truth.icd10[0] if truth.icd10 else ""
    return str(getattr(truth, field))


def majority(calls: Sequence[tuple[Dialogue, Verdict]], train: Taught) -> list[Prediction]:
    """Every call gets each field's commonest value; its share among the training calls is the probability."""
    chances = {}
    for field in FIELDS:
        counts = Counter(label_of(truth, field) for truth in train.truths)
        chances[field] = {name: count / len(train.truths) for name, count in counts.items()}
    return [classified(dialogue, gold, chances) for dialogue, gold in calls]


class WordRegression:
    """TF-IDF of words and pairs of words, and a regression for each field."""

    def __init__(self, train: Taught, validation: Taught) -> None:
        """Teach it; the codes take the strength that was best for the specialty."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._features = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode", ngram_range=(1, 2), min_df=MIN_CALLS)
        seen = self._features.fit_transform(train.texts)
        held_out = self._features.transform(validation.texts) if validation.texts else None
        self._models: dict[str, Any] = {}
        strengths: tuple[float, ...] = STRENGTHS
        for field in FIELDS:
            labels, true = ([label_of(truth, field) for truth in part.truths] for part in (train, validation))
            tried = STRENGTHS if field != "icd10" else strengths
            self._models[field], strength = _best(seen, labels, held_out, true, tried)
            strengths = (strength,)

    def predict(self, calls: Sequence[tuple[Dialogue, Verdict]]) -> list[Prediction]:
        """The answer to each call, with its probabilities."""
        started = time.perf_counter()
        features = self._features.transform([text_of(dialogue) for dialogue, _ in calls])
        chances = {field: _chances(model, features) for field, model in self._models.items()}
        seconds = (time.perf_counter() - started) / len(calls)
        return [
            classified(dialogue, gold, {field: chances[field][place] for field in FIELDS}, seconds)
            for place, (dialogue, gold) in enumerate(calls)
        ]


def _best(seen: Any, labels: Sequence[str], held_out: Any, true: Sequence[str], strengths: Sequence[float]) -> tuple[Any, float]:
    """The regression that is right most often on the validation calls, and its strength; a single label as it is."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) == 1:
        return labels[0], strengths[0]
    tried = strengths if held_out is not None else strengths[-1:]
    models = [LogisticRegression(C=strength, max_iter=MOST_STEPS, tol=1e-3).fit(seen, labels) for strength in tried]
    if len(models) == 1:
        return models[0], tried[0]
    hits = [sum(said == label for said, label in zip(model.predict(held_out), true, strict=True)) for model in models]
    best = hits.index(max(hits))
    return models[best], tried[best]


def _chances(model: Any, features: Any) -> list[dict[str, float]]:
    if isinstance(model, str):
        return [{model: 1.0}] * features.shape[0]
    return [dict(zip(map(str, model.classes_), map(float, row), strict=True)) for row in model.predict_proba(features)]
