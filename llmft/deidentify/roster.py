"""The people, phones and places that the call centre's own system knows of a call, wherever they are said.

Names are matched word by word, without accents and case, also spelled, split or misheard by one
letter. A word that is a name and something else ("Rose Petit") needs a capital, a title or the other
name beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmft.deidentify.cues import cues
from llmft.deidentify.known_names import NameWord, initials, is_doubtful
from llmft.deidentify.numbers import NUMBER_WORDS, digits_in
from llmft.deidentify.roster_cues import is_meant
from llmft.deidentify.roster_hits import Hit, Hits, find_hits, is_one_letter_off, same_name
from llmft.deidentify.roster_index import PHONE_DIGITS, RosterIndex, index_of
from llmft.deidentify.span import Roster, Span
from llmft.deidentify.spelled import spellings, unspelled
from llmft.deidentify.words import Words, fold, words_of

LAYER = "roster"
_MIN_FUZZY = 5  # letters of a street's word that one wrong letter may stand in
_NOBODY = Roster()
_HOUSE_NUMBER = re.compile(r"\d+[\s,]*$")
_AFTER_INITIAL = frozenset((" ", ". ", ".", "-", ".-"))
_SPOKEN_DIGITS = NUMBER_WORDS | {"o", "oh"}
_LETTER_WORDS = frozenset("aiy")  # words of one letter that no apostrophe follows
_INITIALS = frozenset(("initiale", "initiales", "initial", "initials"))
_INITIALS_REACH = 6  # words after "initiales"
_INITIALS_LETTERS = 2  # of a double first name


def find_roster(words: Words, roster: Roster) -> list[Span]:
    """Everything of ``roster`` that is said."""
    if roster == _NOBODY:
        return []
    index = index_of(roster)
    spans = _literals(words, index) + _phones(words, index) + _rows(words, index)
    spans += _initials(words, index) + _spelled(words, index) + _two_letters(words, index)
    hits = find_hits(words, index)
    said = {i: _as_said(words, hits[i], hits) for i in sorted(hits) if is_meant(words, hits[i], hits, index)}
    return spans + _name_spans(words, said, index)


def is_plain_id(text: str, roster: Roster) -> bool:
    """Whether an id such as "call-0012" holds nothing of ``roster`` and no number with a checksum, told at a glance.

    One word that nobody of the roster is called, and too few digits for a phone.
    """
    said, digits = words_of(text), sum(map(str.isdigit, text))
    if len(said) > 1 or "@" in text or digits >= PHONE_DIGITS or not _SPOKEN_DIGITS.isdisjoint(said):
        return False
    if roster == _NOBODY:
        return True
    index = index_of(roster)
    return not any(len(phone) <= digits for phone in index.phones) and not any(same_name(word, index) for word in said)


def canonical(text: str, roster: Roster) -> frozenset[str]:
    """The words of a name as the roster writes them: "D U P O N T", "du pont" and "Dupond" are "dupont"."""
    index = index_of(roster)
    if not index.exact:
        return frozenset(unspelled(text).split())
    written = index.heard.written.get(text)
    if written is None:
        written = index.heard.written[text] = _written(unspelled(text).split(), index)
    return written


def _written(words: Sequence[str], index: RosterIndex) -> frozenset[str]:
    """What the roster writes for ``words``: for all together, or for each."""
    together = same_name("".join(words), index)
    found = [together] if together else [same_name(word, index) or word for word in words]
    return frozenset([part for one in found for part in (one if isinstance(one, str) else one[0].word).split()])


def _spelled(words: Words, index: RosterIndex) -> list[Span]:
    """Names that are spelled, the last letters perhaps heard as a word: "p e l l i n g ford"."""
    spans = []
    for found in spellings(words):
        match, last = same_name(found.letters, index), found.last
        if match is None and words.soft(last + 1):
            match, last = index.exact.get(found.letters + words.words[last + 1]), last + 1
        if match:
            spans.append(words.span(found.first, last, match[0].label, LAYER))
    return spans


def _literals(words: Words, index: RosterIndex) -> list[Span]:
    if not index.literals:
        return []
    if not any("@" not in text or "@" in words.text for text, _ in index.literals):  # nothing is folded to an @
        return []
    folded = fold(words.text)
    return [Span(start, end, label, LAYER) for text, label in index.literals for start, end in _stands(text, folded)]


def _stands(text: str, folded: str) -> Iterator[tuple[int, int]]:
    """Where ``text`` stands as words of its own."""
    start = folded.find(text)
    while start >= 0:
        end = start + len(text)
        is_whole = not (_is_of_word(folded[start - 1 : start]) or _is_of_word(folded[end : end + 1]))
        if is_whole:
            yield start, end
        start = folded.find(text, end if is_whole else start + 1)


def _is_of_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _phones(words: Words, index: RosterIndex) -> list[Span]:
    if not index.phones:
        return []
    said = digits_in(words.text, PHONE_DIGITS - 1)
    return [Span(start, end, "TEL", LAYER) for start, end, digits in said if any(phone in digits for phone in index.phones)]


def _rows(words: Words, index: RosterIndex) -> list[Span]:
    """Towns, addresses with the number before them, and names of short words."""
    spans = []
    for row, label in index.rows:
        for i, word in enumerate(words.words if row[0] in words.unique else ()):
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
        one == other or (len(other) > _MIN_FUZZY and is_one_letter_off(one, other)) for one, other in zip(said, row, strict=True)
    )


def _two_letters(words: Words, index: RosterIndex) -> list[Span]:
    """Names of two letters that are spelled: "L. Y.", "l y"; "y a" in lower case is a phrase."""
    spans = []
    said = words.words
    for i in words.letters if index.two_letters else ():
        if i + 1 == len(said) or len(said[i + 1]) != 1 or words.gaps[i].endswith("'"):
            continue
        found = index.exact.get(said[i] + said[i + 1])
        gap = words.gaps[i + 1]
        if not found or gap.strip(" -.,") or not gap or words.gaps[i + 2].startswith("'"):
            continue
        if (said[i], said[i + 1]) != ("y", "a") or gap.strip() or words.original(i).isupper():
            spans.append(words.span(i, i + 1, found[0].label, LAYER))
    return spans


def _as_said(words: Words, hit: Hit, hits: Hits) -> NameWord:
    """Of several people who bear the name, the one that the words around it name."""
    found = hit.found
    if len(found) == 1:
        return found[0]
    doctor = not cues().doctor_titles.isdisjoint(words.words[max(0, hit.first - 2) : hit.first])
    beside = {one.person for k in (hit.first - 1, hit.last + 1) if k in hits for one in hits[k].found}
    return max(found, key=lambda one: (one.label == "MEDECIN" and doctor, one.person in beside))  # of equals the first


def _name_spans(words: Words, said: dict[int, NameWord], index: RosterIndex) -> list[Span]:
    """One span for neighbours of one name with one label, its short words and initials included."""
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
        while first - 1 > done and len(words.words[first - 1]) <= _INITIALS_LETTERS and _is_initial(words, first - 1, one, index):
            first -= 1
        spans.append(words.span(first, last, one.label, LAYER))
        done = last
    return spans


def _same_span(word: str, other: NameWord | None, one: NameWord, index: RosterIndex) -> bool:
    if other is not None:
        return (other.person, other.label) == (one.person, one.label)
    return one.person in index.short.get(word, ())


def _is_initial(words: Words, i: int, one: NameWord, index: RosterIndex) -> bool:
    """Whether word ``i`` stands before a name as its initial: "j p morel", "J.-P. Morel"; "a" and "y" are words."""
    if words.gaps[i + 1] not in _AFTER_INITIAL or words.gaps[i].endswith("'"):
        return False
    if words.words[i] not in initials(index.people[one.person]):
        return False
    if words.words[i] == "m" and words.gaps[i + 1] == ". ":  # "M. Morel" is Monsieur
        return False
    return words.words[i] not in _LETTER_WORDS or words.gaps[i + 1] != " "


def _initials(words: Words, index: RosterIndex) -> list[Span]:
    """ "Mes initiales, c'est j p v"."""
    if _INITIALS.isdisjoint(words.unique):
        return []
    everybody = frozenset().union(*map(initials, index.people))
    spans = []
    for i in [i for i, word in enumerate(words.words) if word in _INITIALS]:
        row = [k for k in words.letters if i < k <= i + _INITIALS_REACH and words.words[k] in everybody]
        row = [k for k in row if k - 1 in row or k + 1 in row]
        if row:
            spans.append(words.span(row[0], row[-1], "NOM", LAYER))
    return spans
