"""Labels as sources write them ─▶ the record's labels; two annotators' as one; the triage block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from llmft.dialogue import Dialogue, Fault, Labels, Symptom, Triage, Urgency, read_triage
from llmft.knowledge import Lang
from llmft.prepare.call import RawCall
from llmft.prepare.labels.icd_import import icd10_codes, is_known
from llmft.protocol.rules import flag_labels
from llmft.vocabulary import UNDECIDED, icd10_labels, plain, specialty_id, urgencies

# What else a level is called: P0 to P2 in French dispatch, FRENCH on the French triage scale, stat to routine in FHIR.
URGENCY_ALIASES: dict[str, tuple[str, ...]] = {
    "U1": ("1", "P0", "P1", "niveau 1", "priorité 1", "priority 1", "vital", "vitale", "urgence vitale", "détresse vitale")
    + ("urgence absolue", "absolue", "immédiat", "immédiate", "critique", "critical", "rouge", "red", "code rouge", "stat")
    + ("emergency", "emergent", "life-threatening", "FRENCH 1", "FRENCH 2"),
    "U2": ("2", "P2", "niveau 2", "priorité 2", "priority 2", "urgent", "urgente", "urgence relative", "relative", "asap")
    + ("same day", "le jour même", "dans la journée", "24h", "24 h", "24 heures", "dans les 24h", "dans les 24 h", "sous 24h")
    + ("sous 24 h", "within 24 hours", "FRENCH 3"),
    "U3": ("3", "niveau 3", "non urgent", "non urgente", "pas urgent", "not urgent", "routine", "rendez-vous", "rdv")
    + ("appointment", "FRENCH 4", "FRENCH 5"),
    "U4": ("4", "niveau 4", "conseil", "conseil médical", "conseil téléphonique", "advice", "medical advice", "self-care")
    + ("autosoin",),
    UNDECIDED: ("indéterminé", "indéterminée", "unknown", "inconnu", "inconnue", "undecided", "nr", "à préciser"),
}
# Scales whose numbers or colours run otherwise: a wrong guess would turn an emergency into advice.
OTHER_SCALES = re.compile(r"\b(ccmu|gemsa|esi|cimu|mts|manchester|ctas|ats|news2?|glasgow|gcs|triage)\b")
COLOURS = frozenset(["orange", "jaune", "yellow", "vert", "green", "bleu", "blue", "blanc", "white", "noir", "black"])
_BLOCK = re.compile(r"\s*```json.*?(?:```|\Z)", re.DOTALL)
MISSING = frozenset(["", "nan", "none", "null", "na", "n a", "nc", "n c", "non renseigne", "non renseignee", "non communique"])


class LabelError(ValueError):
    """A label that cannot be used; ``field`` says which one, the message never quotes free text."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def label(call: RawCall, lang: Lang = "fr") -> Labels | Fault | None:
    """The labels of a call, None when its source gives none; two annotators become one label."""
    try:
        first = labels_from(call.labels, call.source, lang)
        second = labels_from(call.labels_second, call.source, lang)
    except LabelError as error:
        return Fault(call.file, call.row, f"labels.{error.field}", str(error))
    return combined(first, second) if first and second else first or second


def labels_from(written: Mapping[str, Any], source: str = "real", lang: Lang = "fr") -> Labels | None:
    """Labels from what a source writes under urgency, specialty, icd10 and red_flags; raises :class:`LabelError`."""
    if not written:
        return None
    urgency, specialty = urgency_id(written.get("urgency")), _specialty(written.get("specialty"))
    codes, flags = _codes(written.get("icd10")), _red_flags(written.get("red_flags"))
    if not (urgency or specialty or codes or flags):
        return None
    return Labels(
        urgency=urgency or UNDECIDED,  # type: ignore[arg-type]
        specialty=specialty or UNDECIDED,
        icd10_primary=codes[0] if codes else None,
        symptoms=tuple(Symptom(text=_lay_label(code, lang), icd10=code) for code in codes[1:]),
        red_flags=flags,
        confidence="generated" if source == "synthetic" else "gold",
    )


def urgency_id(value: Any) -> Urgency | None:
    """The level that a word, number or code means; None when nothing is written; raises :class:`LabelError`."""
    word = _word(value)
    if word in MISSING:
        return None
    if known := _urgency_words().get(word):
        return known
    if OTHER_SCALES.search(word):
        reason = "a level of another triage scale, whose numbers run differently; map each of its levels to U1, U2, U3 or U4"
    elif word in COLOURS:
        reason = "colours mean different levels on different scales; map each colour to U1, U2, U3 or U4"
    else:
        reason = "not an urgency level; write U1, U2, U3, U4 or indetermine"
    raise LabelError("urgency", reason)


@cache
def _urgency_words() -> dict[str, Urgency]:
    words: dict[str, Urgency] = {}
    for level, entry in urgencies().items():
        for word in (level, entry.fr, entry.en, *URGENCY_ALIASES[level]):
            words[_word(word)] = level  # type: ignore[assignment]
    return words


def _specialty(value: Any) -> str | None:
    if _word(value) in MISSING:
        return None
    known = specialty_id(str(value))
    if known is None:
        raise LabelError("specialty", "not a specialty or alias of knowledge/specialties.yaml; map it to one of them")
    return known


def _codes(value: Any) -> tuple[str, ...]:
    cells = value if isinstance(value, list | tuple) else [value]
    codes: dict[str, None] = {}
    for cell in cells:
        if _word(cell) in MISSING:
            continue
        for _, code in icd10_codes(str(cell)):
            if code is None:
                raise LabelError("icd10", "not the form of an ICD-10 code, such as R07.4")
            if not is_known(code):
                raise LabelError(
                    "icd10", f"{code} is not a code of the WHO table; import a national table with: llmft data icd FILE"
                )
            codes[code] = None
    return tuple(codes)


def _red_flags(value: Any) -> tuple[str, ...]:
    cells = value if isinstance(value, list | tuple) else re.split(r"[;|,\n]", str(value or ""))
    flags: dict[str, None] = {}
    for cell in cells:
        word = _word(cell)
        if word in MISSING:
            continue
        if word not in _flag_ids():
            raise LabelError("red_flags", "not a red flag of the protocols or of knowledge/red_flags.yaml; map it to one of them")
        flags[_flag_ids()[word]] = None
    return tuple(flags)


@cache
def _flag_ids() -> dict[str, str]:
    """A red flag's id or label, plain ─▶ its id."""
    ids: dict[str, str] = {}
    for name, names in flag_labels().items():
        for text in (name, names.fr, names.en):
            ids.setdefault(_word(text), name)
    return ids


def _word(value: Any) -> str:
    """Lower case without accents, marks as single spaces; numbers without a decimal zero."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"^(\d)\s0$", r"\1", plain(str(value)))


def combined(first: Labels, second: Labels) -> Labels:
    """Two annotators as one label: the more urgent level, what both saw, and how far they agree.

    Where they differ in urgency or specialty the label is ``silver``: no test set may rest on it.
    """
    same = [first.urgency == second.urgency, first.specialty == second.specialty]
    rank = {name: level.rank for name, level in urgencies().items()}
    urgent = min((first, second), key=lambda labels: rank[labels.urgency] or max(rank.values()) + 1)
    acceptable = dict.fromkeys([urgent.specialty, first.specialty, second.specialty])
    return urgent.model_copy(
        update={
            "annotators": 2,
            "agreement": sum(same) / len(same),
            "red_flags": tuple(dict.fromkeys(first.red_flags + second.red_flags)),
            "specialty_acceptable": tuple(acceptable) if len(acceptable) > 1 else (),
            "icd10_primary": urgent.icd10_primary or first.icd10_primary or second.icd10_primary,
            "confidence": urgent.confidence if all(same) else "silver",
        }
    )


def with_triage(dialogue: Dialogue) -> tuple[Dialogue, Triage | None]:
    """The dialogue with a triage block in its last turn, and that triage; made from the labels where there is none yet.

    Without labels and block it stays as it is, and there is no triage.
    """
    last = dialogue.turns[-1]
    known = read_triage(last.text)
    if dialogue.labels is None or known is not None:
        return dialogue, known
    said, triage = _BLOCK.sub("", last.text).rstrip(), triage_of(dialogue.labels, dialogue.lang)
    block = _block_of(triage)
    turn = last.model_copy(update={"text": f"{said}\n{block}" if said else block})
    return dialogue.model_copy(update={"turns": (*dialogue.turns[:-1], turn)}), triage


def triage_of(labels: Labels, lang: Lang) -> Triage:
    """The triage that labels ask for; its summary is made of their names, never of what was said."""
    codes = (labels.icd10_primary, *(symptom.icd10 for symptom in labels.symptoms))
    return _triage(labels.urgency, labels.specialty, tuple(code for code in codes if code), labels.red_flags, lang)


@lru_cache(maxsize=1 << 10)  # many calls end alike
def _triage(urgency: Urgency, specialty: str, codes: tuple[str, ...], flags: tuple[str, ...], lang: Lang) -> Triage:
    names = [_lay_label(code, lang) for code in codes]
    names += [flag_labels()[flag].of(lang) for flag in flags if flag in flag_labels()]
    return Triage(
        urgency=urgency,
        specialty=specialty,
        icd10=tuple(dict.fromkeys(codes)),
        red_flags=flags,
        summary=", ".join(dict.fromkeys(names)) or _level_name(urgency, lang),
        missing_info=(),
        escalate=urgency in ("U1", UNDECIDED),
    )


_block_of = lru_cache(maxsize=1 << 10)(Triage.as_block)


def _level_name(urgency: Urgency, lang: Lang) -> str:
    level = urgencies()[urgency]
    return level.fr if lang == "fr" else level.en


def _lay_label(code: str, lang: Lang) -> str:
    """Our lay label of a code, its category's, or the code."""
    known = icd10_labels().get(code) or icd10_labels().get(code.split(".")[0])
    return known.of(lang) if known else code
