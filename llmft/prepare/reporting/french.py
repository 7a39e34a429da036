"""The sentences that other modules write in English, in French too, for the page's French half.

``{}`` stands for what varies, in the same order in both. A sentence that is not here stays English, so none can be lost.
"""

from __future__ import annotations

import re
from functools import cache

SENTENCES = {
    # of the whole set
    "only {} of {} rows name a split, so all were split by patient and family": (
        "seules {} lignes sur {} nomment une partie : toutes ont été réparties par patient et par scénario"
    ),
    "{} stand in more than one split, as their rows say; scores will be too good": (
        "{} se trouvent dans plusieurs parties, comme le disent leurs lignes ; les scores seront trop bons"
    ),
    "{} would be empty with these families; add calls, or give each row its split": (
        "{} : vide avec ces scénarios ; ajoutez des appels, ou donnez à chaque ligne sa partie"
    ),
    "{} calls are labelled otherwise than a nearly identical call (see duplicates.jsonl); decide which is right": (
        "{} appels portent une autre étiquette qu'un appel presque identique (voir duplicates.jsonl) ; décidez laquelle est juste"
    ),
    "the test set holds no emergency (U1); nothing can be said of emergency recall: add emergencies": (
        "le test ne contient aucune urgence vitale (U1) ; on ne pourra rien dire de leur rappel : ajoutez-en"
    ),
    "the test set holds {} emergencies (U1), fewer than {}; even a model that finds all of them shows an emergency recall "
    "of at least {} only (95 % interval): add emergencies": (
        "le test contient {} urgences vitales (U1), moins de {} ; même un modèle qui les trouve toutes ne prouve qu'un rappel "
        "d'au moins {} (intervalle à 95 %) : ajoutez-en"
    ),
    "the audit that {} signed on {} was of other calls than the set holds now and is left out; sign a new sheet: --audit 100": (
        "l'audit signé par {} le {} portait sur d'autres appels que ceux du jeu actuel, il n'est donc pas repris ; signez une "
        "nouvelle feuille : --audit 100"
    ),
    # of a row that was kept
    "a fact that the {} stated otherwise in turn {}": "un fait que le {} a dit autrement au tour {}",
    "not the red flags of the triage block": "ne sont pas les signes d'alerte du bloc de tri",
    # why a row was refused
    "{} hit left after de-identification; look at this row": (
        "il reste quelque chose ({}) après la dé-identification ; regardez cette ligne"
    ),
    "erased": "effacé à la demande d'une personne",
    "its label is silver (of rules, or of people who differ); the test split takes labels that people agree on": (
        "son étiquette vient de règles ou de personnes en désaccord (silver), et le test ne prend que ce dont on est d'accord"
    ),
    # duplicates
    "exact, within splits": "identiques, dans la même partie",
    "exact, across splits": "identiques, seraient dans deux parties",
    "near, within splits": "presque identiques, dans la même partie",
    "near, across splits": "presque identiques, seraient dans deux parties",
    # why a row is no dialogue
    "the id appeared in an earlier row, with other words": "l'identifiant est celui d'une ligne précédente, qui dit autre chose",
    "the text is blank": "le texte est vide",
    "the call has no words; check the column or key that holds the text": (
        "l'appel ne contient aucun mot ; vérifiez la colonne ou la clé du texte"
    ),
    "only one speaker says anything; a call needs a patient and an operator": (
        "une seule personne parle ; un appel a un patient et un opérateur"
    ),
    "the operator never answers; a call needs a patient and an operator": (
        "l'opérateur ne répond jamais ; un appel a un patient et un opérateur"
    ),
    "nobody can be told for the operator; say who it is with --roles NAME=operator": (
        "on ne sait pas qui est l'opérateur ; dites-le avec --roles NOM=operator"
    ),
    "the patient asks and the operator answers, as if swapped; turn them with --roles patient=operator,operator=patient": (
        "le patient interroge et l'opérateur répond, comme inversés ; échangez-les : --roles patient=operator,operator=patient"
    ),
    "no speaker is named; write PATIENT: … OPÉRATEUR: …": "personne n'est nommé ; écrivez PATIENT: … OPÉRATEUR: …",
    "the cell is empty": "la cellule est vide",
    "looks like {}; llmft reads French and English": "on dirait la langue {} ; llmft lit le français et l'anglais",
    "neither French nor English; llmft reads these two": "ni français ni anglais ; llmft ne lit que ces deux langues",
    "between two languages, or neither French nor English; give each row its lang": (
        "entre deux langues, ou ni français ni anglais ; donnez à chaque ligne sa langue (lang)"
    ),
    "not a day of the calendar; write it as 2026-11-21 or 21/11/2026": (
        "n'est pas un jour du calendrier ; écrivez 2026-11-21 ou 21/11/2026"
    ),
    "before {}, a day on which no call was recorded; mend it or leave it empty": (
        "avant {}, quand aucun appel n'était enregistré ; corrigez ou laissez vide"
    ),
    "after {}, a day that had not come; mend it or leave it empty": "après le {}, un jour à venir ; corrigez ou laissez vide",
    "not a number; write the age as a whole number from 0 to {}": "n'est pas un nombre ; écrivez l'âge en entier, de 0 à {}",
    "no age of a person; write a whole number from 0 to {}": "n'est pas l'âge d'une personne ; écrivez un entier de 0 à {}",
    "not an urgency level; write U1, U2, U3, U4 or indetermine": (
        "n'est pas un niveau d'urgence ; écrivez U1, U2, U3, U4 ou indetermine"
    ),
    "a level of another triage scale, whose numbers run differently; map each of its levels to U1, U2, U3 or U4": (
        "un niveau d'une autre échelle de tri, aux numéros différents ; donnez U1, U2, U3 ou U4 pour chacun"
    ),
    "colours mean different levels on different scales; map each colour to U1, U2, U3 or U4": (
        "une couleur n'a pas le même sens sur toutes les échelles ; donnez U1, U2, U3 ou U4 pour chacune"
    ),
    "not a specialty or alias of knowledge/specialties.yaml; map it to one of them": (
        "n'est pas une spécialité connue (knowledge/specialties.yaml) ; remplacez-la par l'une d'elles"
    ),
    "not the form of an ICD-10 code, such as R07.4": "n'a pas la forme d'un code CIM-10, comme R07.4",
    "a code is not a code of the WHO table; import a national table with: llmft data icd FILE": (
        "un code absent de la table de l'OMS ; importez une table nationale : llmft data icd FICHIER"
    ),
    "{}, but the triage block says {}; one of them is wrong": "{}, mais le bloc de tri dit {} ; l'un des deux est faux",
    "a code of another category than those of the triage block; one of them is wrong": (
        "un code d'une autre catégorie que ceux du bloc de tri ; l'un des deux est faux"
    ),
    "a code that does not suit the patient's sex; the sex or the code is wrong": (
        "un code qui ne convient pas au sexe du patient ; le sexe ou le code est faux"
    ),
    "the triage block breaks its contract; see the keys in data/README.md": (
        "le bloc de tri n'a pas la bonne forme ; voir les clés dans data/README.md"
    ),
    "a triage block stands before the operator's last turn; it ends the call": (
        "un bloc de tri précède le dernier tour de l'opérateur ; il doit terminer l'appel"
    ),
    "an id may not read like a path; use letters, digits, . : - and _": (
        "un identifiant ne peut pas ressembler à un chemin ; lettres, chiffres, . : - et _"
    ),
    "a key appears twice in one object": "une clé apparaît deux fois dans le même objet",
    "a lone surrogate stands in the text": "le texte contient un demi-caractère (surrogate)",
    "the line is not valid UTF-8": "la ligne n'est pas de l'UTF-8 valide",
    "not JSON at column {}": "n'est pas du JSON à la colonne {}",
    "the row has {} cells and the header {}; quote cells that hold separators": (
        "la ligne a {} cellules et l'en-tête {} ; mettez entre guillemets les cellules qui contiennent le séparateur"
    ),
}


@cache
def in_french(sentence: str) -> str:
    """The sentence in French; as it stands where no French is known."""
    for pattern, french in _patterns():
        found = pattern.fullmatch(sentence)
        if found is not None:
            return french.format(*map(_word, found.groups()))
    return sentence


def _word(varying: str) -> str:
    """A number with a comma, and the few words that vary."""
    text = re.sub(r"(?<=\d)\.(?=\d)", ",", varying)
    for english, french in {" and ": " et ", "families": "scénarios", "train": "entraînement"}.items():
        text = text.replace(english, french)
    return text


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    known = ((english.split("{}"), french) for english, french in SENTENCES.items())
    return tuple((re.compile("(.+?)".join(map(re.escape, parts)), re.DOTALL), french) for parts, french in known)
