"""The one reading of a text that all layers share."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.identifiers import _BRITISH_INSURANCE, _LONG, _LONG_HEAD, _PLATE, _SMALL_PLATE, _heads
from llmft.deidentify.numbers import (
    _ALONE,
    digits_in,
    pieces_by_end,
    pieces_by_start,
    rows_of,
    sizes,
    spoken_number,
    stretches,
)
from llmft.deidentify.tokens import around_numbers, has_digit, lowered, matches_at, starts_of, tokens, words
from llmft.deidentify.words import fold, read

SPEECH = st.lists(
    st.sampled_from(
        ["né", "ne", "12", "06", "l'été", "O’Neil", "vingt", "trois", "ŒUVRE", "İzmir", "٣", "a1b", "\n", " ", "-", "., "]
    )
    | st.text(max_size=4),
    max_size=30,
).map("".join)


@given(SPEECH)
def test_tokens_and_gaps_are_the_whole_text(text):
    known = tokens(text)
    parts = [part for gap, word in zip(known.gaps, known.words, strict=False) for part in (gap, word)]
    assert "".join([*parts, known.gaps[-1]]) == known.lower == lowered(text)
    assert len(known.lower) == len(text)
    assert all(known.lower.startswith(word, start) for word, start in zip(known.words, known.starts, strict=True))
    assert words(text) == frozenset(known.words)
    assert has_digit(text) == (re.search(r"\d", known.lower) is not None and any(map(str.isdecimal, known.words)))


@given(SPEECH)
def test_words_stand_where_the_text_has_them_and_numbers_are_between(text):
    said = read((text,))
    assert len(said.gaps) == len(said.words) + 1
    folded = fold(said.text)
    assert all(folded.startswith(word, start) for word, start in zip(said.words, said.starts, strict=True))
    assert not any(word.isdecimal() for word in said.words)
    assert said.letters == [i for i, word in enumerate(said.words) if len(word) == 1 and word.isascii()]


@given(SPEECH)
def test_pieces_are_found_by_both_ends(text):
    pieces = [piece for row in stretches(text) for piece in row]
    assert list(pieces_by_start(text).values()) == pieces == list(pieces_by_end(text).values())
    assert all(text[piece.start : piece.end] for piece in pieces)


@given(st.text(alphabet="ab 1", max_size=30))
def test_matches_at_every_place_are_those_of_finditer(text):
    pattern = re.compile("a+b?1?")
    found = [match.span() for match in matches_at(pattern, text, range(len(text)))]
    assert found == [match.span() for match in pattern.finditer(text)]


def test_words_are_found_with_their_accents():
    assert starts_of("né hier, il ne dort pas", frozenset(("né", "pas"))) == [0, 20]
    assert starts_of("il ne dort", frozenset(("né",))) == []


PLATES = st.lists(
    st.sampled_from(["AB", "ab", "-", " ", "123", "12", "4", "CDE", "QQ", "75", "2A", "C", "é", "_", "\n", "34 56"]), max_size=14
)


@given(PLATES.map("".join))
def test_plates_begin_at_a_number_or_two_or_three_places_before_it(text):
    places = around_numbers(text, (0, 2, 3))
    assert places == sorted(set(places)) and all(place >= 0 for place in places)
    capitals, numbers = _heads(text)
    tried = ((_PLATE, sorted((*capitals, *numbers))), (_BRITISH_INSURANCE, capitals), (_SMALL_PLATE, places))
    for pattern, starts in tried:
        assert [m.span() for m in matches_at(pattern, text, starts)] == [m.span() for m in pattern.finditer(text)]


@given(
    st.lists(st.sampled_from(["A", "BCD", "a", "-", " ", ".", "1", "123456", "12345678", "000", "٣", "@"]), max_size=9).map(
        "".join
    )
)
def test_long_identifiers_begin_at_a_number_or_a_few_places_before_it(text):
    places = around_numbers(text, range(_LONG_HEAD + 1))
    assert [m.span() for m in matches_at(_LONG, text, places)] == [m.span() for m in _LONG.finditer(text)]


@pytest.mark.parametrize("word", sorted(_ALONE))
def test_a_number_word_alone_is_the_number_that_it_begins(word):
    assert (_ALONE[word], 1) == spoken_number([word, "", "", ""], [False] * 4)


@given(SPEECH)
def test_stretches_know_how_many_digits_they_have(text):
    digits = ["".join(piece.digits for piece in row) for row in stretches(text)]
    assert list(map(len, digits)) == list(sizes(text))
    assert rows_of(text, 3) == [row for row, size in zip(stretches(text), sizes(text), strict=True) if size > 2]
    assert [found[2] for found in digits_in(text)] == [said for said in digits if len(said) > 1]
