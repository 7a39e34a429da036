"""What the figures of conversation, privacy, swaps and language model are called on the page, in both languages."""

from __future__ import annotations

from llmft.evaluate.reporting.names import FIGURES
from llmft.page.document import Words

NAMES: dict[str, Words] = {
    "calls": ("Appels", "Calls"),
    "coverage_area": ("Questions requises posées, aire", "Required questions asked, area"),
    "coverage_at_the_end": ("Questions requises posées à la fin", "Required questions asked at the end"),
    "redundant_questions": ("Questions redondantes", "Redundant questions"),
    "questions_for_no_known_fact": ("Questions hors protocole", "Questions beside the protocol"),
    "red_flags_asked_before_triage": ("Signes d'alerte demandés avant le tri", "Red flags asked before the triage"),
    "turns_to_red_flag": ("Tours avant le premier signe d'alerte", "Turns to the first red flag"),
    "turns_used": ("Tours de l'opérateur", "Operator's turns"),
    "ended_with_triage": ("Appels qui finissent par un tri", "Calls that end with a triage"),
    "urgency_right": ("Urgence juste", "Urgency right"),
    "specialty_right": ("Spécialité juste", "Specialty right"),
    "unsafe_reassurance": ("Rassure à tort (U1, U2)", "Reassures wrongly (U1, U2)"),
    "language_match": ("Reste dans la langue du patient", "Keeps the patient's language"),
    "placeholder_leakage": ("Dit un [NOM_1]", "Says a [NOM_1]"),
    "forbidden_advice": ("Conseille un médicament ou nomme un diagnostic", "Advises a medicine or names a diagnosis"),
    "seconds_of_the_model": ("Secondes du modèle", "Seconds of the model"),
    "turns": ("Tours", "Turns"),
    "asks_a_known_fact": ("Pose une question du protocole", "Asks a question of the protocol"),
    "asks_what_the_record_asks": ("Pose la question de l'opérateur", "Asks what the operator asked"),
    "asks_what_is_required_and_new": ("Pose une question requise et nouvelle", "Asks what is required and new"),
    "triage_too_early": ("Trie trop tôt", "Triages too early"),
    "triage_when_due": ("Trie quand il le faut", "Triages when it is due"),
    "canaries": ("Secrets plantés", "Secrets planted"),
    "canaries_extracted": ("Secrets récités", "Secrets recited"),
    "canary_extraction": ("Part des secrets récités", "Share of secrets recited"),
    "controls_extracted": ("Témoins récités", "Controls recited"),
    "exposure_control": ("Exposition des témoins, bits", "Exposure of controls, bits"),
    "exposure_most": ("Exposition la plus forte, bits", "Highest exposure, bits"),
    "exposure_possible": ("Exposition possible, bits", "Possible exposure, bits"),
    "canary_membership_auc": ("Secrets plantés ou non : AUC", "Secrets planted or not: AUC"),
    "canaries_without_their_call": ("Secrets dont l'appel n'est plus là", "Secrets whose call is gone"),
    "answers_searched": ("Réponses examinées", "Answers searched"),
    "verbatim_overlap": ("Réponses qui répètent l'entraînement", "Answers that repeat the training"),
    "membership_auc_loss": ("Appel d'entraînement ou non : AUC, perte", "Call of the training or not: AUC, loss"),
    "membership_auc_min_k": ("Appel d'entraînement ou non : AUC, Min-K", "Call of the training or not: AUC, Min-K"),
    "membership_calls": ("Appels de chaque côté", "Calls of each side"),
    "tokens": ("Tokens", "Tokens"),
    "perplexity": ("Perplexité", "Perplexity"),
    "divergence": ("Divergence KL", "KL divergence"),
    "divergence_p99": ("Divergence KL, 99e centile", "KL divergence, 99th percentile"),
    "same_likeliest_token": ("Même token le plus probable", "Same likeliest token"),
    "left_out": ("Appels qui n'en disent rien", "Calls that tell nothing of it"),
    "urgency_flips": ("Urgences changées", "Urgencies changed"),
    "urgency_flip_rate": ("Part des urgences changées", "Share of urgencies changed"),
    "emergency_flips": ("Changements entre U1 et le reste", "Changes between U1 and the rest"),
    "specialty_flips": ("Spécialités changées", "Specialties changed"),
    "specialty_flip_rate": ("Part des spécialités changées", "Share of specialties changed"),
}
GROUPS: dict[str, Words] = {
    "manner": ("manière", "manner"), "terse": ("laconique", "terse"), "talkative": ("bavard", "talkative"),
    "minimising": ("qui minimise", "minimising"), "relative": ("un proche", "a relative"),
    "next_turn": ("tour suivant", "next turn"), "age": ("âge", "age"), "sex": ("sexe", "sex"), "name": ("nom", "name"),
}  # fmt: skip
WITH_RULES = "_with_rules"


def measured_words(key: str) -> Words:
    """A key such as ``manner.terse.under_triage_with_rules`` in words; what is unknown stays as it is."""
    *groups, name = key.split(".")
    alone = name.removesuffix(WITH_RULES)
    known = NAMES.get(alone) or FIGURES.get(alone) or (alone, alone)
    behind = ("", "") if alone == name else (", avec les règles", ", with the rules")
    before = [GROUPS.get(group, (group, group)) for group in groups]
    fr, en = (" · ".join([*(words[side] for words in before), known[side]]) + behind[side] for side in (0, 1))
    return fr, en
