"""What the values of a report are called on its page, in French and English."""

from __future__ import annotations

from llmft.page.document import Words
from llmft.prepare.reporting.counts import NONE, UNKNOWN
from llmft.vocabulary import UNDECIDED, specialties

CALLS: Words = ("appels", "calls")
ROWS: Words = ("lignes", "rows")
WITHOUT_LABEL: Words = ("sans étiquette", "without label")

SPLITS: dict[str, Words] = {
    "train": ("entraînement", "training"),
    "validation": ("validation", "validation"),
    "test": ("test", "test"),
}
URGENCIES: dict[str, Words] = {  # short enough to stand beside a bar
    "U1": ("U1 · urgence vitale", "U1 · life-threatening"),
    "U2": ("U2 · dans la journée", "U2 · within a day"),
    "U3": ("U3 · sur rendez-vous", "U3 · appointment"),
    "U4": ("U4 · conseil", "U4 · advice"),
    UNDECIDED: ("à décider par un humain", "for a human to decide"),
    UNKNOWN: WITHOUT_LABEL,
}
CONFIDENCES: dict[str, Words] = {
    "gold": ("gold : posée par des personnes", "gold: given by people"),
    "silver": ("silver : lue par des règles, ou personnes en désaccord", "silver: read by rules, or people differ"),
    "generated": ("generated : écrite par le générateur d'appels", "generated: written by the generator of calls"),
    UNKNOWN: WITHOUT_LABEL,
}
ORIGINS: dict[str, Words] = {
    "real": ("appels réels", "real calls"),
    "synthetic": ("synthétiques, écrits par un programme", "synthetic, written by a program"),
    "simulated": ("simulés, joués par des personnes", "simulated, played by people"),
}
LANGUAGES: dict[str, Words] = {"fr": ("français", "French"), "en": ("anglais", "English")}
BASES: dict[str, Words] = {NONE: ("non indiquée", "not stated")}
RATED: dict[str, Words] = {
    "urgency": ("urgence (même niveau)", "urgency (same level)"),
    "urgency_by_distance": ("urgence, écart au carré (U1–U4)", "urgency, squared distance (U1–U4)"),
    "specialty": ("spécialité", "specialty"),
    "icd10": ("code CIM-10 principal", "primary ICD-10 code"),
    "red_flags": ("signes d'alerte (même liste)", "red flags (same list)"),
}
CHECKS: dict[str, Words] = {
    "patients": ("un même patient", "one patient"),
    "families": ("un même scénario (famille)", "one scenario (family)"),
}
LAYERS: dict[str, Words] = {
    "roster": ("personnes connues de l'appel", "people the call knows"),
    "identifiers": ("identifiants à clé de contrôle", "identifiers with checksums"),
    "contacts": ("téléphones, adresses électroniques", "phones, e-mail addresses"),
    "dates": ("dates", "dates"),
    "addresses": ("adresses", "addresses"),
    "context": ("tournures (« je m'appelle… »)", "phrases (“my name is…”)"),
    "names": ("listes de noms", "lists of names"),
    "lexicon": ("mots inconnus", "unknown words"),
    "external": ("programme externe", "external program"),
}
PLACEHOLDERS: dict[str, Words] = {
    "NOM": ("nom", "name"),
    "PRENOM": ("prénom", "first name"),
    "DATE": ("date", "date"),
    "DATE_NAISSANCE": ("date de naissance", "date of birth"),
    "AGE90+": ("âge de 90 ans ou plus", "age of 90 or more"),
    "ADRESSE": ("adresse", "address"),
    "VILLE": ("ville", "town"),
    "CODE_POSTAL": ("code postal", "postal code"),
    "TEL": ("téléphone", "phone"),
    "EMAIL": ("courriel", "e-mail"),
    "IP": ("adresse IP", "IP address"),
    "URL": ("site web", "web site"),
    "NIR": ("n° de sécurité sociale", "social security no."),
    "IPP": ("n° de patient", "patient no."),
    "NUM_DOSSIER": ("n° de dossier", "file no."),
    "RPPS": ("n° de soignant", "clinician no."),
    "FINESS": ("n° d'établissement", "institution no."),
    "HOPITAL": ("hôpital", "hospital"),
    "MEDECIN": ("médecin", "doctor"),
    "IBAN": ("compte bancaire", "bank account"),
    "CARTE": ("carte bancaire", "bank card"),
    "MUTUELLE": ("n° de mutuelle", "insurance no."),
    "PLAQUE": ("plaque", "number plate"),
    "EMPLOYEUR": ("employeur", "employer"),
    "IDENTIFIANT": ("autre identifiant", "other identifier"),
}
FILES: dict[str, Words] = {
    "train.jsonl": ("appels pour entraîner", "calls to train on"),
    "validation.jsonl": ("appels pour régler", "calls to tune with"),
    "test.jsonl": ("appels pour mesurer, à la fin", "calls to measure with, at the end"),
    "quarantine.jsonl": ("lignes inutilisables : où et pourquoi", "rows of no use: where and why"),
    "duplicates.jsonl": ("lignes qui en répètent une autre", "rows that repeat another one"),
    "refused.jsonl": ("lignes saines mais laissées de côté", "sound rows that were left out"),
    "warnings.jsonl": ("lignes gardées où quelque chose cloche", "rows kept although something does not fit"),
    "lineage.jsonl": ("d'où vient chaque appel", "where each call came from"),
}


def specialty(name: str) -> Words:
    """A specialty's name; of a call that has none, that."""
    known = specialties().get(name)
    return (known.fr, known.en) if known else WITHOUT_LABEL


def placeholder(name: str) -> Words:
    """The mark that stands in the texts, and what it stands for."""
    fr, en = PLACEHOLDERS.get(name, ("", ""))
    return (f"{name} · {fr}", f"{name} · {en}") if fr else (name, name)
