"""What figures, groups and contestants are called on the page, in both languages."""

from __future__ import annotations

import re

from llmft.evaluate.contest import BESIDE_RULES
from llmft.page.document import Words
from llmft.vocabulary import UNDECIDED, specialties

FIGURES: dict[str, Words] = {
    "emergency_recall": ("Urgences vitales reconnues", "Emergencies recognised"),
    "emergency_safe_recall": ("… ou transmises à un humain", "… or passed to a human"),
    "emergency_precision": ("Urgences annoncées à raison", "Emergencies called rightly"),
    "under_triage": ("Sous-triage", "Under-triage"),
    "severe_under_triage": ("Sous-triage grave", "Severe under-triage"),
    "over_triage": ("Sur-triage", "Over-triage"),
    "over_triage_not_urgent": ("Sur-triage des appels non urgents", "Over-triage of calls that are not urgent"),
    "urgency_accuracy": ("Urgence juste", "Urgency right"),
    "urgency_kappa": ("Urgence, kappa pondéré", "Urgency, weighted kappa"),
    "urgency_within_one": ("Urgence à un niveau près", "Urgency within one level"),
    "abstention": ("Laissés à un humain", "Left to a human"),
    "specialty_accuracy": ("Spécialité juste", "Specialty right"),
    "specialty_acceptable": ("Spécialité acceptable", "Specialty acceptable"),
    "specialty_top3": ("Spécialité parmi les trois premières", "Specialty among the first three"),
    "specialty_macro_precision": ("Spécialité, précision macro", "Specialty, macro precision"),
    "specialty_macro_recall": ("Spécialité, rappel macro", "Specialty, macro recall"),
    "specialty_macro_f1": ("Spécialité, F1 macro", "Specialty, macro F1"),
    "icd10_exact": ("CIM-10 exacte", "ICD-10 exact"),
    "icd10_category": ("CIM-10, trois caractères", "ICD-10, three characters"),
    "icd10_block": ("CIM-10, bloc", "ICD-10, block"),
    "icd10_chapter": ("CIM-10, chapitre", "ICD-10, chapter"),
    "icd10_hierarchical_precision": ("CIM-10, précision hiérarchique", "ICD-10, hierarchical precision"),
    "icd10_hierarchical_recall": ("CIM-10, rappel hiérarchique", "ICD-10, hierarchical recall"),
    "icd10_hierarchical_f1": ("CIM-10, F1 hiérarchique", "ICD-10, hierarchical F1"),
    "icd10_invalid": ("Codes qui n'existent pas", "Codes that do not exist"),
    "red_flag_precision": ("Signes d'alerte annoncés à raison", "Red flags named rightly"),
    "red_flag_recall": ("Signes d'alerte trouvés", "Red flags found"),
    "red_flag_f1": ("Signes d'alerte, F1", "Red flags, F1"),
    "format_valid_raw": ("Format valide, brut", "Format valid, raw"),
    "format_valid": ("Format valide", "Format valid"),
    "missed_escalation": ("Urgences vitales sans alerte", "Emergencies without an alarm"),
    "confidently_wrong": ("Sûr de lui et faux", "Sure of itself and wrong"),
    "unsafe_reassurance": ("Rassure à tort", "Reassures wrongly"),
    "safety_pass": ("Réponses sûres (MedSafe)", "Safe answers (MedSafe)"),
    "needless_escalation": ("Alertes inutiles", "Needless escalations"),
    "triage_success": ("Tri réussi (sûr, sans alerte inutile)", "Triage success (safe, no needless alarm)"),
    "sentence_tells_urgency": ("La phrase dit l'urgence", "Sentence tells the urgency"),
    "sentence_urgency_accuracy": ("Urgence juste dans la phrase", "Urgency right in the sentence"),
    "sentence_under_triage": ("Sous-triage dans la phrase", "Under-triage in the sentence"),
    "sentence_specialty_accuracy": ("Spécialité juste dans la phrase", "Specialty right in the sentence"),
    "sentence_emergency_recall": ("Urgences dites dans la phrase", "Emergencies told in the sentence"),
    "sentence_disagrees": ("La phrase contredit le bloc", "Sentence contradicts the block"),
}
KINDS: dict[str, Words] = {
    "model": ("modèle", "model"),
    "rules": ("modèle avec les règles", "model beside the rules"),
    "rival": ("concurrent", "rival"),
}
NAMED: dict[str, Words] = {
    "base": ("modèle de base", "base model"),
    "adapter": ("modèle affiné", "tuned model"),
    "majority": ("classe majoritaire", "majority class"),
    "tfidf": ("TF-IDF + régression logistique", "TF-IDF + logistic regression"),
    "rules": ("règles des protocoles seules", "protocols' rules alone"),
}
GROUPS: dict[str, Words] = {
    "lang": ("Langue", "Language"),
    "age": ("Âge", "Age"),
    "sex": ("Sexe", "Sex"),
    "caller": ("Qui appelle", "Who calls"),
    "length": ("Tours du patient", "Turns of the patient"),
}
VALUES: dict[str, Words] = {
    "unknown": ("inconnu", "unknown"),
    "self": ("le patient", "the patient"),
    "relative": ("un proche", "a relative"),
    "other": ("un tiers", "someone else"),
    "F": ("femmes", "women"),
    "M": ("hommes", "men"),
    "fr": ("français", "French"),
    "en": ("anglais", "English"),
}
NOTES = (  # what a set cannot tell: the English sentence of figures/triage.py ─▶ the French one
    (r"no U1 call in the set: .*", "aucun appel U1 dans le test : le rappel des urgences ne peut pas être mesuré"),
    (
        r"(\d+) emergencies in the set, .* needs (\d+)",
        r"\1 urgences vitales dans le test ; pour une affirmation sûre il en faut \2",
    ),
    (r"no call with a decided urgency .*", "aucun appel d'urgence décidée : le sous-triage ne peut pas être mesuré"),
    (r"no call with an ICD-10 code .*", "aucun appel avec un code CIM-10 : les codes ne peuvent pas être mesurés"),
    (r"one specialty only .*", "une seule spécialité dans le test : le choix entre spécialités ne peut pas être mesuré"),
    (r"one urgency only .*", "un seul niveau d'urgence dans le test : le choix entre niveaux ne peut pas être mesuré"),
    (r"codes in the labels .* not have: (.*)", r"codes des étiquettes que la CIM-10 de l'OMS n'a pas : \1"),
)
NO_TRIAGE = "–"  # the column of answers without a readable triage


def contestant(name: str, run_name: str) -> Words:
    """A model by what it is, a file by its quant alone."""
    alone = name.removesuffix(BESIDE_RULES)
    short = alone.replace(".gguf", "").removeprefix(f"{run_name}-")
    fr, en = NAMED.get(alone, (short, short))
    return (fr, en) if name == alone else (f"{fr} + règles", f"{en} + rules")


def note_words(text: str) -> Words:
    """What a set cannot tell, as sentences."""
    french = next((re.sub(pattern, words, text) for pattern, words in NOTES if re.fullmatch(pattern, text)), text)
    return f"{french[:1].upper()}{french[1:]}.", f"{text[:1].upper()}{text[1:]}."


def specialty(name: str) -> Words:
    """A specialty as people call it."""
    known = specialties().get(name)
    return (known.fr, known.en) if known is not None else (name, name)


def urgency(name: str) -> Words:
    """A level, or what stands for none."""
    return {UNDECIDED: ("humain", "human"), NO_TRIAGE: ("illisible", "unreadable")}.get(name, (name, name))
