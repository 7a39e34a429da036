"""Hospitals by their names, and employers where somebody says for whom they work."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmft.deidentify.tokens import words

_HOSPITAL_WORDS = frozenset(
    ("hôpital", "hopital", "clinique", "polyclinique", "chu", "chru", "chr", "ch", "hospitalier", "ehpad")
)
_HOSPITAL_WORDS |= {"ehpad", "maternité", "hospices", "hospital", "infirmary", "medical", "clinic"}
# Hospitals so well known that speech recognition writes them without capitals or "saint".
_FAMOUS = (
    "necker|cochin|bichat|tenon|lariboisi[èe]re|piti[ée][\\s-]salp[êe]tri[èe]re|salp[êe]tri[èe]re|georges pompidou|pompidou|"
    "beaujon|robert[\\s-]debr[ée]|trousseau|bic[êe]tre|henri[\\s-]mondor|mondor|foch|curie|gustave[\\s-]roussy|[ée]douard[\\s-]herriot|"
    "croix[\\s-]rousse|lyon[\\s-]sud|timone|purpan|rangueil|pellegrin|hautepierre|pontchaillou|lapeyronie|huriez|salengro|laennec|"
    "bretonneau|percy|b[ée]gin|rothschild|avicenne|delafontaine|ambroise[\\s-]par[ée]|b[ée]cl[èe]re|larrey|archet|pasteur|lenval"
)
_NAME = r"[A-ZÉÈÀÂÎÔ][\w'’-]+"
_FRENCH_HOSPITAL = re.compile(
    r"\b(?:(?i:h[ôo]pital|polyclinique|clinique|chru?|chu|centre hospitalier(?: universitaire| r[ée]gional"
    r"| intercommunal)?|ehpad|"
    r"maternit[ée]|hospices)|CH)\s+(?:(?i:priv[ée]e?|universitaire)\s+)?"
    r"(?:(?:(?i:de la|de l['’]|de|du|des|d['’]|la|le|les|l['’])\s*)?"
    r"(?!(?i:je|il|elle|on|et|mais|les urgences|urgences|pour|ce|c['’])\b)"
    rf"(?:{_NAME}(?:(?:[\s-](?:de|du|des|la|le|les|en|sur)){{0,2}}[\s-]{_NAME}){{0,3}}"
    rf"|(?i:sainte?|st|ste)[\s-](?i:\w[\w'’-]+)|(?i:(?:la |du |de la )?(?:{_FAMOUS}))\b))"
)
_ENGLISH_HOSPITAL = re.compile(
    r"\b(?!(?:The|My|A|An|In|To|This|Your|At|That|From|Our|Call|Local|Is|It)\b)"
    r"[A-Z][\w'’.-]*(?:\s+(?:of\s+|and\s+)?[A-Z][\w'’-]+){0,4}['’]?"
    r"\s+(?i:hospital|infirmary|medical cent(?:er|re)|clinic)\b"
    r"|\b(?i:(?:st|saint|mount|queen|king|king['’]?s|guy['’]?s|royal|great ormond|mayo|addenbrooke['’]?s|johns hopkins)\.?"
    r"(?:\s+(?!hospital|infirmary|clinic)[a-z'’]+){0,2}\s+(?:hospital|infirmary|medical cent(?:er|re)|clinic))\b"
)
# Names that stand for the hospital without any word beside them.
_ALONE = (
    "piti[ée][\\s-]salp[êe]tri[èe]re|salp[êe]tri[èe]re|lariboisi[èe]re|necker|bichat|cochin|beaujon|bic[êe]tre|pontchaillou|"
    "purpan|rangueil|hautepierre|timone|lapeyronie"
)
_FAMOUS_ALONE = re.compile(rf"(?<=\bà )(?:(?:la|l['’])\s*)?(?:{_ALONE})\b", re.IGNORECASE)
_ALONE_LIST = """
    salpêtrière salpetriere lariboisière lariboisiere necker bichat cochin beaujon bicêtre bicetre pontchaillou purpan rangueil
    hautepierre timone lapeyronie
"""
_HOSPITAL_WORDS |= set(_ALONE_LIST.split())
_WORK_WORDS = frozenset(
    ("travaille", "travaillait", "bosse", "employé", "employée", "employeur", "société", "entreprise", "boîte")
)
_WORK_WORDS |= {"salarié", "salariée", "work", "works", "working", "worked", "employed", "employer", "company"}
_WORKS = re.compile(
    r"\b(?:(?:travaille|travaillait|bosse)\s+(?:chez|pour|à la|à l['’]|au|à)|(?:employ|salari)ée?\s+(?:chez|par|à la|de la|à|de)"
    r"|(?:mon )?employeur\s+(?:c['’]est|est|:)|ma (?:société|boîte|entreprise)\s+(?:c['’]est|s['’]appelle|:)"
    r"|work(?:s|ed|ing)?\s+(?:for|at)|employed\s+(?:by|at)|(?:my )?employer\s+(?:is|:)|my company\s+(?:is|:))\s*",
    re.IGNORECASE,
)
_FIRM = re.compile(rf"(?:{_NAME}|[A-Z]{{2,}})(?:\s+(?:(?:de|du|des|la|et|and|of|&)\s+)?(?:{_NAME}|[A-Z]{{2,}})){{0,3}}")
_SMALL_FIRM = re.compile(r"[a-zéèêàç][\w-]{2,}")  # speech recognition, without capitals
_FIRM_NAMED = re.compile(r"(?:chez|for|c['’]est|est|s['’]appelle|is|by|par)\s*$", re.IGNORECASE)
_NO_FIRM_LIST = """
    moi lui elle nous vous eux soi un une des les le la mon ma mes ton son sa ses leur leurs notre votre domicile temps mi
    nuit jour particulier particuliers plein pas plus très quelqu personne personnes the his her their our your home night
    nights hours hour years year months days day and but this that him them myself himself herself not very least part full
    long over about all any two three four five six seven eight nine ten
"""
_NO_FIRM = frozenset(_NO_FIRM_LIST.split())
INSTITUTION_WORDS = _HOSPITAL_WORDS | _WORK_WORDS


def hospitals(text: str, lang: str) -> Iterator[tuple[int, int]]:
    """Places of hospital names, with the word "hôpital", "clinic"… that they stand beside."""
    if _HOSPITAL_WORDS.isdisjoint(words(text)):
        return
    yield from (match.span() for match in _FRENCH_HOSPITAL.finditer(text))
    yield from (match.span() for match in _FAMOUS_ALONE.finditer(text))
    if lang == "en":
        yield from (match.span() for match in _ENGLISH_HOSPITAL.finditer(text))


def employers(text: str) -> Iterator[tuple[int, int]]:
    """Places of employers' names."""
    if _WORK_WORDS.isdisjoint(words(text)):
        return
    for works in _WORKS.finditer(text):
        firm = _FIRM.match(text, works.end())
        if firm is None and _FIRM_NAMED.search(works[0]):
            firm = _SMALL_FIRM.match(text, works.end())
        if firm and firm[0].lower().split()[0] not in _NO_FIRM:
            yield firm.span()
