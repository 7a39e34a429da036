"""Who speaks, as transcripts write it: ``PATIENT :``, ``[ARM]``, ``Opérateur 1 -``, ``SPEAKER_00:``, ``Mme Durand :``.

Evident names become patient or operator; all others stay as they stand, for :mod:`llmft.prepare.readers.speakers` to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from llmft.vocabulary import name_key

_PATIENT = """patient patiente pt pat appelant appelante caller requerant requerante demandeur demandeuse usager malade victime
client cliente mere pere maman papa mari femme epouse epoux conjoint conjointe fils fille frere soeur proche famille entourage
aidant aidante voisin voisine temoin accompagnant accompagnante parent relative mother father wife husband customer p"""
_OPERATOR = """operateur operatrice operator op agent agente conseiller conseillere teleconseiller teleconseillere teleoperateur
teleoperatrice standard standardiste arm parm regulateur regulatrice regulation permanencier permanenciere samu secretaire
secretariat accueil infirmier infirmiere ide ioa nurse dispatcher medecin docteur doctor assistant assistante receptionist
receptionniste calltaker call_taker triage_nurse assistant_de_regulation assistante_de_regulation medecin_regulateur
medecin_regulatrice infirmier_regulateur infirmiere_regulatrice assistant_de_regulation_medicale centre o"""
ROLES: Final = dict.fromkeys(_PATIENT.split(), "patient") | dict.fromkeys(_OPERATOR.split(), "operator")

# Facts of a call that stand among its lines as "Name: value"; "" is known and of no use.
_FACT_NAMES = {
    "date": "date, date_appel, date_de_l_appel, call_date",
    "lang": "langue, language, lang",
    "family": "scenario, cas, case",
    "subject": "dossier, numero_de_dossier, n_dossier, ipp, patient_id, id_patient",
    "labels.urgency": "urgence, urgency, niveau, niveau_d_urgence, niveau_urgence, priorite, priority, triage",
    "labels.specialty": "specialite, specialty, orientation",
    "labels.icd10": "cim, cim_10, cim10, icd, icd_10, icd10, code_cim",
    "patient.age": "age",
    "patient.sex": "sexe, sex, genre, gender",
    "roster.patient": "nom, nom_du_patient, nom_patient, nom_et_prenom, prenom, patient_name, name",
    "roster.operators": "nom_de_l_operateur, nom_operateur, operator_name",
    "roster.doctors": "medecin_traitant, nom_du_medecin",
    "roster.phones": "telephone, tel, phone, numero, numero_appelant",
    "roster.emails": "email, e_mail, courriel, mail",
    "roster.addresses": "adresse, address",
    "roster.cities": "ville, commune, city",
    "": "id, heure, time, duree, duration, fichier, file, titre, title, source",
}
FACTS: Final = {name: field for field, names in _FACT_NAMES.items() for name in names.split(", ")}

_TIME = r"\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d{1,3})?"
_GAP = r"[^\S\n]*"
_LONGEST_NAME = 40  # characters
_AT_START = re.compile(
    rf"{_GAP}(?:[-–—•*>#]+{_GAP})?(?:[\[(]?(?P<time>{_TIME})[\])]?{_GAP}[-–|]?{_GAP})?\*{{0,2}}"
    r"(?:[\[<](?P<boxed>[^\]>\n]{1,40})[\]>]|(?P<name>[^\W_][^\n:|<>\[\](){}\t?!;,\"«»*]{0,39}?))"
    rf"\*{{0,2}}{_GAP}(?:\([^)\n:]{{0,30}}\){_GAP})?(?:[\[(]?(?P<time_after>{_TIME})[\])]?{_GAP})?\*{{0,2}}"
    rf"(?P<sep>[:|>\t]|$|(?<=\s)[-–—](?=\s)|(?<=[\]>*])){_GAP}\*{{0,2}}{_GAP}",
    re.MULTILINE,
)
_NUMBERED = re.compile(
    r"(?:speaker|spk|locuteur|intervenant|interlocuteur|participant|voix|canal|channel|ch|s)[ _-]?\w{1,2}|[a-z]|q|r"
)
_TITLED = re.compile(r"(?:M|Mr|Mrs|Ms|Mme|Mlle|Dr|Pr|Docteur|Monsieur|Madame)\b")


@dataclass(frozen=True)
class Label:
    """Where a speaker or a fact of the call is named: characters ``[start, end)``."""

    start: int
    end: int
    speaker: str
    time: float | None = None  # seconds
    fact: str | None = None


@lru_cache(maxsize=4096)
def role_of(name: str) -> str | None:
    """``patient`` or ``operator`` when the name says so, number and case aside; None otherwise."""
    return ROLES.get(re.sub(r"_?\d{1,3}$", "", name_key(name)))


def speaker_of(name: str) -> str:
    """The role when it is evident, the name as it stands otherwise."""
    return role_of(name) or name.strip()


def fact_of(line: str) -> str | None:
    """The field that a line such as ``Urgence : U1`` tells; None for any other line."""
    name, colon, _ = line.partition(":")
    return _fact(name) if colon and len(name) < 40 else None


@lru_cache(maxsize=4096)
def _fact(name: str) -> str | None:
    return FACTS.get(name_key(name))


@lru_cache(maxsize=4096)
def is_evident(name: str) -> bool:
    """Whether a name is a role, or what a machine calls a speaker: surely no person's."""
    return role_of(name) is not None or _NUMBERED.fullmatch(name_key(name)) is not None


@lru_cache(maxsize=4096)
def _is_usual(name: str) -> bool:
    """An evident name without marks around it: the spelling that needs no second look."""
    return is_evident(name) and re.fullmatch(r"[\w '’.-]+", name) is not None


def labels_in(text: str) -> list[Label]:
    """Every place of ``text`` that names a speaker or a fact, in order; what only looks like one is left alone."""
    text = text.replace("：", ":")
    labels: list[Label] = []
    doubtful: list[tuple[re.Match[str], str]] = []
    start = 0
    while start >= 0:
        line_end = text.find("\n", start)
        colon = text.find(":", start, min(start + _LONGEST_NAME, line_end if line_end >= 0 else len(text)))
        name = text[start:colon].strip()
        if colon > 0 and _is_usual(name) and not (name[-1].isdigit() and text[colon + 1 : colon + 2].isdigit()):
            labels.append(Label(start, colon + 1, speaker_of(name)))
        elif match := _AT_START.match(text, start):
            doubtful.append((match, (match["boxed"] or match["name"]).strip()))
        start = line_end + 1 or -1
    if doubtful:
        evident = {label.speaker for label in labels} | {speaker_of(name) for _, name in doubtful if is_evident(name)}
        labels += [_label(match, name) for match, name in doubtful if _names_somebody(match, name, len(evident) >= 2)]
    if labels and text.count(":") > len(labels):
        labels += _inside(text, labels)
    labels.sort(key=lambda label: label.start)
    return labels


def _label(match: re.Match[str], name: str) -> Label:
    fact = _fact(name) if role_of(name) is None else None
    time = match["time"] or match["time_after"]
    return Label(match.start(), match.end(), speaker_of(name), _seconds(time) if time else None, fact)


def _names_somebody(match: re.Match[str], name: str, speakers_known: bool) -> bool:
    """Whether a line's first words are a speaker or a fact rather than the beginning of a sentence."""
    if is_evident(name):
        return bool(match["boxed"]) or match["sep"] == ":" or role_of(name) is not None and len(name) > 1
    if match["sep"] != ":":
        return False
    if _fact(name) is not None or _TITLED.match(name):
        return True
    if speakers_known:  # "Attention : …" in the middle of a turn
        return name.isupper() and len(name) > 3
    return name[0].isupper()


def _inside(text: str, labels: list[Label]) -> list[Label]:
    """Speakers named in the middle of a line, written as the first one is."""
    first = min(labels, key=lambda label: label.start)
    shouting = text[first.start : first.end].split("(")[0].isupper()
    taken = [(label.start, label.end) for label in labels]
    inside = []
    colon = -1
    while (colon := text.find(":", colon + 1)) >= 0:
        if any(start <= colon < end for start, end in taken):
            continue
        line_start = text.rfind("\n", 0, colon) + 1
        words = text[max(line_start, colon - _LONGEST_NAME) : colon].replace("|", " ").replace("/", " ").split()[-5:]
        for number, word in enumerate(words):  # the longest name first
            name = " ".join(words[number:])
            if word[0].isupper() and (name.isupper() or not shouting) and is_evident(name):
                start = text.rfind(word, line_start, colon)
                inside.append(Label(start, colon + 1, speaker_of(name)))
                break
    return inside


def _seconds(time: str) -> float:
    """``1:02:03.5`` or ``02:03`` as seconds."""
    total = 0.0
    for part in time.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total
