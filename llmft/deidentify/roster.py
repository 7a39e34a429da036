"""The people, phones and places that the call centre's own system knows of a call, wherever they are said.

Names are matched word by word, without accents and case, also spelled, split or misheard by one
letter. A word that is a name and something else ("Rose Petit") needs a capital, a title or the other
name beside it.
"""

from __future__ import annotations

import re

from llmft.deidentify.cues import cues, phrases
from llmft.deidentify.lexicon import is_known, lexicon
from llmft.deidentify.names import is_guarded, names
from llmft.deidentify.numbers import digits_in
from llmft.deidentify.roster_index import MIN_FUZZY, PHONE_DIGITS, NameWord, RosterIndex, index_of, is_doubtful
from llmft.deidentify.span import Roster, Span
from llmft.deidentify.spelled import spellings, unspelled
from llmft.deidentify.words import Words, fold

LAYER = "roster"
Hits = dict[int, tuple[NameWord, ...]]  # word ─▶ the roster's words that it may be

_NOBODY = Roster()
_HOUSE_NUMBER = re.compile(r"\d+[\s,]*$")
_NAME_CUES = frozenset(("appelle", "appellent", "prenom", "nom", "name", "surname", "nomme", "prenomme"))
_COMPANY = frozenset(("avec", "pour", "chez", "with", "for", "ici", "allo", "hello"))  # before a first name
_SURNAME_CUES = frozenset(("famille", "dossier", "monsieur", "madame", "family"))
_SPEAK = frozenset(("parler", "parle", "speak", "talk", "demande", "passer", "passez"))
_HESITATION = frozenset(("euh", "heu", "hum", "um", "uh", "donc", "alors", "so"))
_CALLS = frozenset(("appareil", "telephone", "calling", "speaking"))
_IS = frozenset(("c", "est", "is", "s", "traitant", "traitante", "le", "docteur"))
_QUESTION_WORDS = 10  # before an answer, in which the name is asked for
_ANSWER_WORDS = 6  # of an answer's start in which the name stands


def find_roster(words: Words, roster: Roster) -> list[Span]:
    """Everything of ``roster`` that is said."""
    if roster == _NOBODY:
        return []
    index = index_of(roster)
    spans = _literals(words, index) + _phones(words, index) + _rows(words, index)
    spelled = [(found, match) for found in spellings(words) if (match := _same_name(found.letters, index))]
    spans += [words.span(found.first, found.last, match[0].label, LAYER) for found, match in spelled]
    spans += _two_letters(words, index)
    hits = _hits(words, index)
    said = {i: _as_said(words, i, hits) for i in sorted(hits) if _is_meant(words, i, hits)}
    return spans + _name_spans(words, said, index)


def canonical(text: str, roster: Roster) -> frozenset[str]:
    """The words of a name as the roster writes them: "D U P O N T", "du pont" and "Dupond" are "dupont"."""
    letters = unspelled(text).split()
    if roster == _NOBODY:
        return frozenset(letters)
    index = index_of(roster)
    if "".join(letters) in index.exact:
        return frozenset(("".join(letters),))
    return frozenset(match[0].word if (match := _same_name(word, index)) else word for word in letters)


def _literals(words: Words, index: RosterIndex) -> list[Span]:
    if not index.literals:
        return []
    folded = fold(words.text)
    bounded = [(re.compile(rf"(?<!\w){re.escape(text)}(?!\w)"), label) for text, label in index.literals if text in folded]
    return [Span(*match.span(), label, LAYER) for pattern, label in bounded for match in pattern.finditer(folded)]


def _phones(words: Words, index: RosterIndex) -> list[Span]:
    if not index.phones:
        return []
    said = ((start, end, digits) for start, end, digits in digits_in(words.text) if len(digits) >= PHONE_DIGITS - 1)
    return [Span(start, end, "TEL", LAYER) for start, end, digits in said if any(phone in digits for phone in index.phones)]


def _rows(words: Words, index: RosterIndex) -> list[Span]:
    """Towns, addresses with the number before them, and names of short words."""
    spans = []
    for row, label in index.rows:
        for i, word in enumerate(words.words):
            if word != row[0] or not _is_row(words.words[i : i + len(row)], row, label):
                continue
            if len(row) == 1 and is_doubtful(word) and (words.opens(i) or not words.capital(i)):
                continue
            number = _HOUSE_NUMBER.search(words.gaps[i]) if label == "ADRESSE" else None
            start = words.starts[i] - (len(words.gaps[i]) - number.start() if number else 0)
            spans.append(Span(start, words.end(i + len(row) - 1), label, LAYER))
    return spans


def _is_row(said: list[str], row: tuple[str, ...], label: str) -> bool:
    """Whether the words are those of ``row``; a long word of a street may be misheard by one letter."""
    if tuple(said) == row:
        return True
    if label != "ADRESSE" or len(said) != len(row):
        return False
    return all(
        one == other or (len(other) > MIN_FUZZY and is_one_letter_off(one, other)) for one, other in zip(said, row, strict=True)
    )


def _two_letters(words: Words, index: RosterIndex) -> list[Span]:
    """Names of two letters that are spelled: "L. Y.", "l y"; "y a" in lower case is a phrase."""
    if not any(len(name) == 2 for name in index.exact):
        return []
    spans = []
    said = words.words
    for i, (one, other) in enumerate(zip(said, said[1:], strict=False)):
        if len(one) != 1 or len(other) != 1 or words.gaps[i].endswith("'"):
            continue
        found = index.exact.get(one + other)
        gap = words.gaps[i + 1]
        if not found or gap.strip(" -.,") or not gap or words.gaps[i + 2].startswith("'"):
            continue
        if (one, other) != ("y", "a") or gap.strip() or words.original(i).isupper():
            spans.append(words.span(i, i + 1, found[0].label, LAYER))
    return spans


def _hits(words: Words, index: RosterIndex) -> Hits:
    """Word ─▶ the roster's words that it is, exactly, in two pieces or misheard."""
    hits: Hits = {}
    exact, heads, tails, halves, function = index.exact, index.heads, index.tails, index.halves, lexicon().function
    for i, word in enumerate(words.words):
        if word in exact:
            hits[i] = exact[word]
        elif word in halves and words.soft(i + 1) and (pair := exact.get(word + words.words[i + 1])):
            hits[i] = hits[i + 1] = pair if not is_known(words.words[i + 1]) else _doubted(pair)
        elif word not in function and (word[:2] in heads or word[-2:] in tails) and (close := _misheard(word, index)):
            hits[i] = close
    return hits


def _doubted(found: tuple[NameWord, ...]) -> tuple[NameWord, ...]:
    return tuple(NameWord(one.word, one.label, one.person, True) for one in found)


def _same_name(word: str, index: RosterIndex) -> tuple[NameWord, ...] | None:
    return index.exact.get(word) or _misheard(word, index)


def _misheard(word: str, index: RosterIndex) -> tuple[NameWord, ...] | None:
    """The roster's word that ``word`` is but for one letter; ordinary words are themselves."""
    if len(word) < MIN_FUZZY - 1:
        return None
    close = {*index.heads.get(word[:2], ()), *index.tails.get(word[-2:], ())}
    for candidate in sorted(close):
        if abs(len(candidate) - len(word)) < 2 and is_one_letter_off(word, candidate) and not is_known(word):
            return index.exact[candidate]
    return None


def is_one_letter_off(one: str, other: str) -> bool:
    """Whether one letter changed, added or left out makes the words equal (equal words are too)."""
    shorter, longer = sorted((one, other), key=len)
    same = next((k for k, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    return longer[same + 1 :] == (shorter[same:] if len(shorter) < len(longer) else shorter[same + 1 :])


def _is_meant(words: Words, i: int, hits: Hits) -> bool:
    """Whether word ``i`` is the name and not the ordinary word or the eponym that it also is."""
    if i - 1 in hits and words.words[i - 1] + words.words[i] == hits[i][0].word:  # the second half of "du pont"
        return _is_meant(words, i - 1, hits)
    if is_guarded(words, i):
        return False
    if not all(one.doubtful for one in hits[i]):
        return True
    if words.capital(i) and (not words.opens(i) or any(one.label == "PRENOM" for one in hits[i])):
        return True
    return _beside_own(words, i, hits) or _is_announced(words, i, hits[i])


def _beside_own(words: Words, i: int, hits: Hits) -> bool:
    """Whether another word of the same name stands beside word ``i``."""
    beside = [k for k, joined in ((i - 1, words.soft(i)), (i + 1, words.soft(i + 1))) if joined and k in hits]
    return any(one.person == other.person and one.word != other.word for k in beside for other in hits[k] for one in hits[i])


def _is_announced(words: Words, i: int, found: tuple[NameWord, ...]) -> bool:
    """Whether what stands around word ``i`` says that a name is said."""
    is_first_name = any(one.label == "PRENOM" for one in found)
    if _answers(words, i):
        return True
    if words.words[i + 1 : i + 3] == ["a", "l"] and words.words[i + 3 : i + 4] == ["appareil"]:
        return True
    if not _CALLS.isdisjoint(words.words[i + 1 : i + 3]) and words.soft(i + 1):
        return True
    if i == 0 or words.new_text(i):
        return is_first_name and words.soft(i + 1) and words.words[i + 1] in cues().verbs_after
    if words.words[i - 1] in _HESITATION and words.near(i) and not words.new_text(i - 1) and i > 1:
        return words.near(i - 1) and words.words[i - 2] in (cues().titles | _NAME_CUES)
    before, before_that = words.words[i - 1], words.words[i - 2] if i > 1 else ""
    if before in cues().titles:
        return words.near(i) or words.gaps[i] == ". "
    if not words.near(i):
        return False
    if _is_introduced(words, i, found, is_first_name):
        return True
    if is_first_name and (before in _COMPANY or (before_that, before) == ("this", "is")):
        return True
    return before in _NAME_CUES or (before in cues().relations and before_that in cues().possessives)


def _is_introduced(words: Words, i: int, found: tuple[NameWord, ...], is_first_name: bool) -> bool:
    """Whether a phrase before word ``i`` brings a name in: "moi c'est", "parler à", "mon médecin c'est", "la famille"."""
    before = words.words[max(0, i - 3) : i]
    if before in (["moi", "c", "est"], ["nom", "c", "est"], ["prenom", "c", "est"], ["medecin", "c", "est"]):
        return True
    if before[-2:] in (["nom", "est"], ["name", "is"], ["name", "s"]):
        return True
    if is_first_name:
        return len(before) > 1 and before[-1] in ("a", "to", "with") and before[-2] in _SPEAK
    if any(one.label == "MEDECIN" for one in found):
        k = i - 1
        while k > max(0, i - 4) and words.words[k] in _IS:
            k -= 1
        if words.words[k] in cues().doctors:
            return True
    first = before[-1]
    return first in _SURNAME_CUES or (first in names().first and first not in names().marked and words.soft(i))


def _answers(words: Words, i: int) -> bool:
    """Whether word ``i`` stands where a question for the name, or a title left open, is answered."""
    start = i
    while start > 0 and not words.new_text(start) and i - start < _ANSWER_WORDS:
        if words.words[start - 1] not in cues().fillers and words.words[start - 1] not in cues().polite:
            return False
        start -= 1
    if start == 0 or not words.new_text(start):
        return False
    asked = words.words[max(0, start - _QUESTION_WORDS) : start]
    if not cues().other_questions.isdisjoint(asked):
        return False
    said = f" {' '.join(asked)} "
    return asked[-1] in cues().titles or any(f" {' '.join(phrase)} " in said for phrase in phrases("questions"))


def _as_said(words: Words, i: int, hits: Hits) -> NameWord:
    """Of several people who bear word ``i``, the one that the words around it name."""
    found = hits[i]
    if len(found) == 1:
        return found[0]
    doctor = not cues().doctor_titles.isdisjoint(words.words[max(0, i - 2) : i])
    beside = {one.person for k in (i - 1, i + 1) for one in hits.get(k, ())}
    return max(found, key=lambda one: (one.label == "MEDECIN" and doctor, one.person in beside, -one.person))


def _name_spans(words: Words, said: dict[int, NameWord], index: RosterIndex) -> list[Span]:
    """One span for neighbours of one name with one label, short words of the same name included."""
    spans: list[Span] = []
    done = -1
    for i, one in said.items():
        if i <= done:
            continue
        first = last = i
        while first - 1 > done and words.soft(first) and one.person in index.short.get(words.words[first - 1], ()):
            first -= 1
        while words.soft(last + 1) and _same_span(words.words[last + 1], said.get(last + 1), one, index):
            last += 1
        while last > i and last not in said:  # a particle at the end belongs to what follows
            last -= 1
        spans.append(words.span(first, last, one.label, LAYER))
        done = last
    return spans


def _same_span(word: str, other: NameWord | None, one: NameWord, index: RosterIndex) -> bool:
    if other is not None:
        return (other.person, other.label) == (one.person, one.label)
    return one.person in index.short.get(word, ())
