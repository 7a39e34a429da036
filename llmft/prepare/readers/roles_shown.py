"""Who is taken for the operator in each source, told in a line that a human can confirm or contradict with --roles.

Guessed call by call, as cleaning does, over the first calls of a source. A name that may be a person's is counted
and not shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.sources import ReadOptions, Source, read_source
from llmft.prepare.readers.speaker_labels import is_evident
from llmft.prepare.readers.speakers import SURE, guess_roles

SAMPLE_CALLS = 50
OF_CHATS_TOLD = "roles: the user is the patient, the assistant the operator; else --roles patient=operator,operator=patient"
MOST_NAMES = 6  # of speakers that a line shows
OF_CHATS = frozenset(("chats", "dataset", "hub"))
OF_OTHERS = OF_CHATS | {"speech", "table", "text", "subtitles"}  # forms with speakers of their own
ONE_CALL_A_FILE = frozenset(("speech", "subtitles", "text"))


def with_roles_shown(sources: Sequence[Source], options: ReadOptions, roles: Mapping[str, str] | None) -> list[Source]:
    """The sources, the first one of each folder of like files with a line on its speakers among what was guessed."""
    groups: dict[object, list[Source]] = {}
    for source in sources:
        key = (source.path.parent, source.file_format) if source.file_format in ONE_CALL_A_FILE else source.name
        groups.setdefault(key, []).append(source)
    lines = {group[0].name: _line(group, options, roles) for group in groups.values() if group[0].file_format in OF_OTHERS}
    return [replace(s, guessed=(*s.guessed, line)) if (line := lines.get(s.name)) else s for s in sources]


def _line(group: Sequence[Source], options: ReadOptions, roles: Mapping[str, str] | None) -> str:
    calls = list(islice(_calls(group, options), SAMPLE_CALLS))
    place = group[0].name if len(group) == 1 else str(Path(group[0].name).parent)
    told = describe_roles([call.turns for call in calls], roles)
    if not told and group[0].file_format in OF_CHATS:
        told = OF_CHATS_TOLD
    return f"{place}: {told}" if told else ""


def _calls(group: Sequence[Source], options: ReadOptions) -> Iterator[RawCall]:
    for source in group:
        yield from (row for row in read_source(source, options) if isinstance(row, RawCall))


def describe_roles(calls: Iterable[Sequence[RawTurn]], roles: Mapping[str, str] | None = None) -> str:
    """Each speaker's role in ``calls``, how often it was guessed, and how to say otherwise; "" where the source tells it."""
    given, told, votes, number, unsure = dict(roles or {}), 0, Counter[tuple[str, str]](), 0, 0
    for turns in calls:
        number += 1
        unknown = {turn.speaker for turn in turns} - given.keys() - {"patient", "operator", "system"}
        if not unknown:
            told += 1
            continue
        guess = guess_roles(turns)
        unsure += guess.confidence < SURE
        votes.update((name, guess.mapping[name]) for name in sorted(unknown) if guess.confidence >= SURE)
    said = ", ".join(f"{name} = {role}" for name, role in given.items())
    if told == number:
        return f"roles as you said: {said}" if said else ""
    shown = _shown(votes)
    parts = [f"roles guessed in {'the first call' if number == 1 else f'the first {number} calls'}: {'; '.join(shown) or 'none'}"]
    if unsure:
        parts.append(f"not told in {unsure} of them, which go to quarantine")
    likely = {name: role for (name, role), _ in reversed(votes.most_common()) if is_evident(name)}
    example = ",".join(f"{name}={role}" for name, role in sorted(likely.items())[:2]) or "NAME=operator"
    changing = len({name for name, _ in votes if is_evident(name)}) < sum(is_evident(name) for name, _ in votes)
    condition = ", if they are so in all calls" if changing else ""
    return f"{', '.join(parts)}; say who is who with --roles {example}{condition}"


def _shown(votes: Counter[tuple[str, str]]) -> list[str]:
    """``NAME = role in n``, likelier first; names that may be people's are added up."""
    by_name: dict[str, Counter[str]] = {}
    for (name, role), count in votes.items():
        known = f"{name} =" if is_evident(name) else "names that may be people's, not shown:"
        by_name.setdefault(known, Counter())[role] += count
    ranked = sorted(by_name.items(), key=lambda item: (-item[1].total(), item[0]))
    lines = [f"{name} {', '.join(f'{role} in {n}' for role, n in counts.most_common())}" for name, counts in ranked]
    return lines[:MOST_NAMES] + ([f"and {len(lines) - MOST_NAMES} more"] if len(lines) > MOST_NAMES else [])
