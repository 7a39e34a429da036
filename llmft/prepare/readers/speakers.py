"""Who is the operator: who asks the questions, greets with the service's name and tells what happens next.

What was guessed is shown for each source, for a human to confirm (roles_shown); a reason says what a guess rests on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from llmft.prepare.call import RawTurn
from llmft.prepare.readers.speaker_labels import role_of

Role = Literal["patient", "operator", "system"]
SURE = 0.8  # from this confidence on a guess may be used without asking
_SYSTEM = {"system", "systeme", "système", "narrator", "narrateur", "ivr", "svi", "serveur vocal", "musique", "music"}
_OPERATOR_SAYS = (
    # asks the other one
    r"(?:avez|êtes|pouvez|prenez|souffrez|ressentez|sentez|habitez|voulez|savez|faites|toussez|saignez|respirez)[- ]vous",
    r"vous (?:avez|êtes|prenez|sentez|ressentez|arrivez|pouvez|habitez)",
    r"est[- ]ce que (?:vous|il|elle|la|le)|depuis (?:quand|combien)|quel âge|quelle? est|quels? sont|sur une échelle|combien de",
    r"(?:a|est|arrive|peut|respire|parle|répond)[- ](?:t[- ])?(?:il|elle)",
    r"(?:have|are|do|can|did|were|could|would) (?:you|he|she|they)|(?:is|does|has|was) (?:he|she|it|the|your)",
    r"how (?:long|old|bad|much|many|severe|is)|when did|where (?:is|does|exactly)|what(?:'s| is) (?:your|the)|any other",
    # greets and agrees
    r"centre (?:d'appels?|de|15)|cabinet|samu|régulation|secrétariat|à votre écoute|je vous écoute|puis-je vous",
    r"(?:can|may) i help|thank you for calling|d'accord|je comprends|très bien|i see|i understand|all right",
    # tells what happens next
    r"ne quittez pas|restez en ligne|appelez le|composez le|un médecin va|allongez|asseyez|rendez-vous (?:avec|chez|dans)",
    r"je vous (?:passe|envoie|mets|transfère|propose|oriente|conseille|rappelle|prends)",
    r"i(?:'ll| will| am going to|'m going to) (?:send|book|put|transfer|pass|arrange)|stay on the line",
    r"you (?:should|need to) (?:see|call|go)|call (?:15|112|911|999)",
)
_PATIENT_SAYS = (
    r"j'ai|j'arrive|je (?:suis|me sens|n'arrive|ne|prends|tousse|saigne|vomis|voudrais|vous appelle|crois)",
    r"m(?:a|on|es) (?:fils|fille|mari|femme|père|mère|bébé|voisine?|frère|sœur|petite?|enfants?)",
    r"m(?:a|on|es) (?:tête|ventre|dos|bras|jambes?|cœur|poitrine|yeux|dents?|gorge)",
    r"ça (?:fait|me|brûle|gratte|lance|serre|a)|(?:il|elle) (?:a|est|vomit|pleure)",
    r"depuis (?:hier|ce|deux|trois|une?|quelques|la|le|lundi|mardi)",
    r"i(?:'ve| have| feel| am|'m| had| can't| cannot| think| take| need)|it (?:hurts|started|burns|itches|is)",
    r"my (?:son|daughter|husband|wife|father|mother|baby|neighbour|child)",
    r"my (?:head|chest|back|stomach|arm|leg|heart|eyes?|teeth|throat)",
    r"(?:he|she) (?:has|is|can't|was)|since (?:yesterday|this|last|monday)|for (?:two|three|a few) (?:days|hours|weeks)",
)
_OPERATOR, _PATIENT = (re.compile(rf"\b(?:{'|'.join(says)})\b") for says in (_OPERATOR_SAYS, _PATIENT_SAYS))


@dataclass(frozen=True)
class RoleGuess:
    """Speaker ─▶ role, how sure it is (0.5: a coin, 1: beyond doubt), and what it rests on."""

    mapping: Mapping[str, Role]
    confidence: float
    reason: str


def guess_roles(turns: Iterable[RawTurn]) -> RoleGuess:
    """The role of each speaker of a call, or of several calls in which a name always means the same person."""
    words: dict[str, list[str]] = defaultdict(list)
    for turn in turns:
        words[turn.speaker].append(turn.text)
    named = {name: _named_role(name) for name in words}
    mapping: dict[str, Role] = {name: "system" for name, role in named.items() if role == "system"}
    people = [name for name in words if name not in mapping]
    if not people:
        return RoleGuess(mapping, 0.5, "nobody speaks")
    if len(people) == 1:
        role = named[people[0]]
        mapping[people[0]] = role or "patient"
        return RoleGuess(mapping, 0.5, "only one speaker is heard")
    leaning = {name: _leaning(words[name]) for name in people}
    if all(named[name] for name in people):
        return _confirmed({**mapping, **{name: role for name in people if (role := named[name])}}, leaning)
    return _by_words(mapping, named, leaning)


def with_roles(turns: Iterable[RawTurn], mapping: Mapping[str, str]) -> tuple[RawTurn, ...]:
    """The turns as patient's and operator's in alternation: system turns go, turns in a row of one speaker are joined.

    A speaker that ``mapping`` does not know keeps its name. Who begins and who ends is left as it is.
    """
    made: list[RawTurn] = []
    for turn in turns:
        speaker = mapping.get(turn.speaker, turn.speaker)
        if speaker == "system":
            continue
        if made and made[-1].speaker == speaker:
            made[-1] = _joined(made[-1], turn)
        else:
            made.append(turn if speaker == turn.speaker else replace(turn, speaker=speaker))
    return tuple(made)


def _joined(first: RawTurn, second: RawTurn) -> RawTurn:
    gap = "\n" if "```" in first.text or "```" in second.text else " "  # a fence stands on lines of its own
    texts = [text for text in (first.text, second.text) if text.strip()]
    return replace(first, text=gap.join(texts), end=second.end if second.end is not None else first.end)


@lru_cache(maxsize=4096)
def _named_role(name: str) -> Role | None:
    if name.strip().lower() in _SYSTEM:
        return "system"
    role = role_of(name)
    return "operator" if role == "operator" else "patient" if role == "patient" else None


def _leaning(texts: Sequence[str]) -> float:
    """From -1, speaks as patients do, to 1, speaks as operators do."""
    operator = patient = 0.0
    for text in texts:
        plain = text.lower().replace("’", "'")
        operator += min(2, len(_OPERATOR.findall(plain))) + ("?" in text)
        patient += min(2, len(_PATIENT.findall(plain)))
    return (operator - patient) / (operator + patient + 1)


def _confirmed(mapping: dict[str, Role], leaning: dict[str, float]) -> RoleGuess:
    """The names say it all, unless the words say the opposite."""
    sides: dict[Role, list[float]] = {"operator": [], "patient": []}
    for name, lean in leaning.items():
        sides[mapping[name]].append(lean)
    if not sides["operator"] or not sides["patient"]:
        return RoleGuess(mapping, 0.5, "all speakers have names of the same role")
    margin = max(sides["operator"]) - max(sides["patient"])
    if margin < -0.6:
        return RoleGuess(mapping, 0.5, "by their names, but the words say the opposite: the roles may be swapped")
    return RoleGuess(mapping, 1.0 if margin > 0 else 0.9, "by their names")


def _by_words(mapping: dict[str, Role], named: Mapping[str, Role | None], leaning: dict[str, float]) -> RoleGuess:
    """Who leans most to one side takes it; a third speaker goes where it is nearer."""
    known = {name: role for name in leaning if (role := named[name])}
    unknown = sorted((name for name in leaning if name not in known), key=lambda name: leaning[name])
    roles: dict[str, Role] = dict(known)
    if "operator" not in roles.values():
        roles[unknown.pop()] = "operator"
    if "patient" not in roles.values() and unknown:
        roles[unknown.pop(0)] = "patient"
    ends = {role: [leaning[name] for name in roles if roles[name] == role] for role in ("operator", "patient")}
    middle = sum(max(lean, default=0.0) for lean in ends.values()) / 2
    for name in unknown:
        roles[name] = "operator" if leaning[name] > middle else "patient"
    margin = max(ends["operator"], default=0.0) - max(ends["patient"], default=0.0)
    confidence = 0.9 if known and margin > -0.3 else min(0.99, max(0.5, 0.5 + margin / 1.5))
    operators = ", ".join(sorted(name for name, role in roles.items() if role == "operator"))
    reason = "one name tells the other" if known else f"who asks and informs: {operators}" if margin > 0.3 else "hardly any sign"
    return RoleGuess({**mapping, **roles}, round(confidence, 3), reason)
