"""The rules' reading of a call: red flags with the words that raised them, and the least urgency that they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from llmft.dialogue import Urgency
from llmft.knowledge import Lang, load, protocols
from llmft.protocol import Match, matches_in_call
from llmft.protocol.beside import least_urgency, most_urgent
from llmft.protocol.heard_language import heard_language
from llmft.protocol.rules import flag_labels, red_flags
from llmft.serve.triage.shapes import Banner, Flag
from llmft.vocabulary import urgencies

Said = tuple[str, str]  # speaker, text


@dataclass(frozen=True)
class Screening:
    """What the rules read in a call."""

    flags: tuple[Flag, ...]
    denied: tuple[Flag, ...]
    complaint: Match | None  # the likeliest one, if the words say enough

    @property
    def floor(self) -> Urgency | None:
        """What the red flags demand while the call goes on."""
        return most_urgent(flag.urgency for flag in self.flags)

    @property
    def least(self) -> Urgency | None:
        """No triage may be less urgent than this: the red flags, and the complaint where the words clearly name it."""
        return least_urgency((flag.urgency for flag in self.flags), self.complaint)

    @property
    def thought_of(self) -> frozenset[str]:
        """The specialties that a rule thinks of."""
        return frozenset((*(flag.specialty for flag in self.flags), *([self.complaint.specialty] if self.complaint else ())))


def screen(turns: Sequence[Said], lang: Lang) -> Screening:
    """Read a call in ``lang``, and in the other language too when the patient seems to speak it."""
    found = _read(turns, lang, lang)
    heard = heard_language(text for speaker, text in turns if speaker == "patient")
    return found if heard == lang else joined(found, _read(turns, heard, lang))


def joined(first: Screening, second: Screening) -> Screening:
    """Both readings: a flag that counts in one of them counts; the first one's words stand."""
    flags = {flag.id: flag for flag in (*second.flags, *first.flags)}
    denied = {flag.id: flag for flag in (*second.denied, *first.denied) if flag.id not in flags}
    return Screening(_in_order(flags), _in_order(denied), first.complaint or second.complaint)


def _in_order(flags: Mapping[str, Flag]) -> tuple[Flag, ...]:
    return tuple(sorted(flags.values(), key=lambda flag: (urgencies()[flag.urgency].rank, flag.turn, flag.id)))


def _read(turns: Sequence[Said], spoken: Lang, shown: Lang) -> Screening:
    found = matches_in_call(turns, spoken)
    flags = {match.name: _flag(match, shown) for match in found if match.kind == "red_flag" and match.counts}
    denied = {match.name: _flag(match, shown) for match in found if match.kind == "red_flag" and not match.counts}
    return Screening(_in_order(flags), _in_order(denied), next((match for match in found if match.kind == "complaint"), None))


def _flag(match: Match, lang: Lang) -> Flag:
    label = flag_labels()[match.name].of(lang)
    return Flag(
        id=match.name,
        rule=match.rule,
        label=label,
        urgency=match.urgency,
        specialty=match.specialty,
        quote=match.quote,
        turn=match.turn,
        span=match.span,
        stance=match.stance,
        source=_source(match),
    )


def _source(match: Match) -> str:
    if match.name in red_flags() and match.rule.startswith("red_flag:"):
        return f"red_flags.yaml {_rules_date()}"
    return f"protocols/{match.specialty}.yaml {_protocol_dates()[match.specialty]}"


@cache
def _rules_date() -> str:
    return str(load("red_flags.yaml")["date"])


@cache
def _protocol_dates() -> dict[str, str]:
    return {protocol.specialty: protocol.date for protocol in protocols()}


def banner(flags: Sequence[Flag], urgency: Urgency | None, lang: Lang) -> Banner | None:
    """What to show at once when the call is a matter of life; None otherwise."""
    if urgency != "U1":
        return None
    signs = ", ".join(flag.label for flag in flags if flag.urgency == "U1")
    if lang == "fr":
        head = f"Signe d'alerte : {signs}. " if signs else ""
        return Banner(number="15", text=f"{head}Passez l'appel au 15 (ou au 112) tout de suite.")
    head = f"Red flag: {signs}. " if signs else ""
    return Banner(number="112", text=f"{head}Pass the call to 112 (in France: 15) at once.")
