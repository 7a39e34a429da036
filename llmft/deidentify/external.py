"""An external recogniser as one more layer: Presidio, or any callable that finds names in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llmft.deidentify.span import Span
from llmft.errors import LlmftError, MissingExtraError
from llmft.vocabulary import placeholders

LAYER = "external"
Recogniser = Callable[[str, str], Iterable[tuple[int, int, str]]]  # text, language ─▶ start, end, label

# What recognisers call things ─▶ our placeholders; anything else they find is an [IDENTIFIANT].
_LABELS = {
    "PERSON": "NOM",
    "PER": "NOM",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "TEL",
    "IBAN_CODE": "IBAN",
    "CREDIT_CARD": "CARTE",
    "IP_ADDRESS": "IP",
    "DATE_TIME": "DATE",
    "LOCATION": "VILLE",
    "LOC": "VILLE",
    "GPE": "VILLE",
    "ORGANIZATION": "EMPLOYEUR",
    "ORG": "EMPLOYEUR",
    "UK_NHS": "NIR",
    "US_SSN": "NIR",
}


def find_external(texts: Sequence[str], offsets: Sequence[int], lang: str, recogniser: Recogniser) -> list[Span]:
    """What ``recogniser`` finds in each text, in the characters of the joined texts."""
    spans: list[Span] = []
    for text, offset in zip(texts, offsets, strict=True):
        for start, end, label in recogniser(text, lang):
            if not 0 <= start < end <= len(text):
                raise LlmftError(
                    f"the external recogniser gave characters {start} to {end} of a text of {len(text)}; "
                    "mend it, or leave the layer 'external' out"
                )
            known = label if label in placeholders() else _LABELS.get(label, "IDENTIFIANT")
            spans.append(Span(offset + start, offset + end, known, LAYER))
    return spans


def presidio_recogniser(languages: Sequence[str] = ("fr", "en"), minimum_score: float = 0.4) -> Recogniser:
    """Presidio's pattern recognisers, without a language model and without network.

    Raises :class:`MissingExtraError` when presidio-analyzer is not installed.
    """
    try:
        import tldextract
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NoOpNlpEngine
    except ImportError as error:
        raise MissingExtraError("presidio_analyzer", "presidio") from error
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())  # its own list; it would fetch one
    nlp_engine = NoOpNlpEngine([{"lang_code": language, "model_name": ""} for language in languages])
    registry = RecognizerRegistry(supported_languages=list(languages))
    registry.load_predefined_recognizers(languages=list(languages), nlp_engine=nlp_engine)
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp_engine, supported_languages=list(languages))

    def recognise(text: str, lang: str) -> list[tuple[int, int, str]]:
        found = engine.analyze(text=text, language=lang, score_threshold=minimum_score)
        return [(result.start, result.end, result.entity_type) for result in found]

    return recognise
