"""Whether words that may be a name of the roster are meant as one, by what stands around them.

"Rose", "Petit" and what sounds like a name are ordinary words too; a capital, a title, the other name beside them or
a phrase such as "moi c'est" decides.
"""

from __future__ import annotations

from llmft.deidentify.cues import cues, phrases
from llmft.deidentify.names import is_guarded, names
from llmft.deidentify.roster_hits import Hit, Hits
from llmft.deidentify.roster_index import RosterIndex
from llmft.deidentify.words import Words

_NAME_CUES = frozenset(("appelle", "appellent", "prenom", "nom", "name", "surname", "nomme", "prenomme"))
_COMPANY = frozenset(("avec", "pour", "chez", "with", "for", "ici", "allo", "hello"))  # before a first name
_SURNAME_CUES = frozenset(("famille", "dossier", "monsieur", "madame", "family"))
_SPEAK = frozenset(("parler", "parle", "speak", "talk", "demande", "passer", "passez"))
_HESITATION = frozenset(("euh", "heu", "hum", "um", "uh", "donc", "alors", "so"))
_CALLS = frozenset(("appareil", "telephone", "calling", "speaking"))
_IS = frozenset(("c", "est", "is", "s", "traitant", "traitante", "le", "docteur"))
_MODALS = frozenset(("may", "will"))  # verbs that begin a question and follow a person
_AND = frozenset(("et", "and", "ou", "or", "mais", "but"))
_TOO = frozenset(("aussi", "too", "also"))
_LITTLE = frozenset(("petit", "petite", "little"))
_ACTS_LIST = """
    elle il qui he she who ne n arrive fait peut refuse saigne mange boit tombe tremble transpire demande veut commence
    can cannot won didn doesn isn needs wants feels looks fell hit hurt wakes
"""
_ACTS = frozenset(_ACTS_LIST.split())  # after a first name that opens a sentence
_SAYS = (["m", "a"], ["m", "avait"], ["told", "me"], ["gave", "me"], ["put", "me"], ["said", "to"])
_QUESTION_WORDS = 10  # before an answer, in which the name is asked for
_ANSWER_WORDS = 6  # of an answer's start in which the name stands


def is_meant(words: Words, hit: Hit, hits: Hits, index: RosterIndex) -> bool:
    """Whether ``hit`` is the name and not the ordinary words or the eponym that it also is."""
    first = hit.first
    beside = _beside_own(words, hit, hits, index)
    if is_guarded(words, first) and not beside:
        return False
    if not hit.doubtful or beside:
        return True
    if words.capital(first) and (not words.opens(first) or _is_written_first_name(words, hit)):
        return True
    return _is_announced(words, hit, hits)


def _is_written_first_name(words: Words, hit: Hit) -> bool:
    """Whether a capital that opens a sentence is enough: for "Rose", not for "May" or for "Art" as a form of Arthur."""
    said = words.words[hit.first]
    return said not in _MODALS and any(one.label == "PRENOM" and one.word == said for one in hit.found)


def _is_first_name(hit: Hit) -> bool:
    return any(one.label == "PRENOM" for one in hit.found)


def _beside_own(words: Words, hit: Hit, hits: Hits, index: RosterIndex) -> bool:
    """Whether another word of the same name stands beside ``hit``, with nothing but that name's particles between."""
    before, after = hit.first, hit.last
    while words.soft(before) and words.words[before - 1] in index.short and before - 1 not in hits:
        before -= 1
    while words.soft(after + 1) and words.words[after + 1] in index.short and after + 1 not in hits:
        after += 1
    beside = [hits[k] for k, joined in ((before - 1, before), (after + 1, after + 1)) if words.soft(joined) and k in hits]
    return any(
        one.person == other.person and one.word != other.word
        for near in beside
        if (near.exact and hit.exact) or not (near.doubtful and hit.doubtful)  # "la petite rose" is not Rose Petit
        for other in near.found
        for one in hit.found
    )


def _is_announced(words: Words, hit: Hit, hits: Hits) -> bool:
    """Whether what stands around ``hit`` says that a name is said."""
    i, after, first_name = hit.first, words.words[hit.last + 1 : hit.last + 4], _is_first_name(hit)
    if _answers(words, i) or after == ["a", "l", "appareil"] or (words.soft(hit.last + 1) and not _CALLS.isdisjoint(after[:2])):
        return True
    if i == 0 or words.opens(i):
        return words.soft(hit.last + 1) and (
            (first_name and (after[0] in cues().verbs_after or after[0] in _ACTS)) or _prescribes(hit, after)
        )
    before, before_that = words.words[i - 1], words.words[i - 2] if i > 1 else ""
    if before in _HESITATION and words.near(i) and not words.new_text(i - 1) and i > 1:
        return words.near(i - 1) and before_that in (cues().titles | _NAME_CUES)
    if before in cues().titles:
        return words.near(i) or words.gaps[i] == ". "
    if not words.near(i):
        return False
    if _is_introduced(words, hit) or (first_name and _is_child(words, hit, hits)):
        return True
    if first_name and (before in _COMPANY or (before_that, before) == ("this", "is")):
        return True
    related = before in cues().relations and before_that in cues().possessives and words.words[i] not in _MODALS
    return before in _NAME_CUES or related


def _prescribes(hit: Hit, after: list[str]) -> bool:
    """ "Marchand m'a dit…": a doctor whose name opens the sentence."""
    return after[:2] in _SAYS and any(one.label == "MEDECIN" for one in hit.found)


def _is_child(words: Words, hit: Hit, hits: Hits) -> bool:
    """ "La petite Rose est…", "et Pierre aussi", "Zoé et Noé": a first name as one speaks of children."""
    i, before = hit.first, words.words[hit.first - 1]
    following = words.words[hit.last + 1] if words.near(hit.last + 1) else ""
    if before in _LITTLE:
        return following in cues().verbs_after or following in _ACTS
    if before not in _AND:
        return False
    other = hits.get(i - 2)
    return following in _TOO or (other is not None and not other.doubtful and words.near(i - 1))


def _is_introduced(words: Words, hit: Hit) -> bool:
    """Whether a phrase before ``hit`` brings a name in: "moi c'est", "parler à", "mon médecin c'est", "la famille"."""
    i = hit.first
    before = words.words[max(0, i - 3) : i]
    if before in (["moi", "c", "est"], ["nom", "c", "est"], ["prenom", "c", "est"], ["medecin", "c", "est"]):
        return True
    if before[-2:] in (["nom", "est"], ["name", "is"], ["name", "s"]):
        return True
    if _is_first_name(hit):
        return len(before) > 1 and before[-1] in ("a", "to", "with") and before[-2] in _SPEAK
    if any(one.label == "MEDECIN" for one in hit.found):
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
    if start == 0 or not words.new_text(start) or words.after_placeholder(start):
        return False
    asked = words.words[max(0, start - _QUESTION_WORDS) : start]
    if not cues().other_questions.isdisjoint(asked):
        return False
    said = f" {' '.join(asked)} "
    return asked[-1] in cues().titles or any(f" {' '.join(phrase)} " in said for phrase in phrases("questions"))
