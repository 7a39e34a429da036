from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import read_triage
from llmft.prepare.cleaning.normalise import normalise, words
from llmft.prepare.synthetic.synthesize import synthesize

PIECES = [
    "<b>",
    "</b>",
    "&lt;",
    "&amp;",
    "&gt;",
    "<!--",
    "-->",
    "```json\n{}\n```",
    "```json",
    "<script>",
    "\r\n",
    "e\u0301",
    "« ",
]
MARKS = list("<>&;#`{}\"'/ \n\r\t«»“’—–\u00a0\u200b\u200d\u202e\u0301\u0085\x92\u1fef")
WILD = st.lists(st.one_of(st.text(max_size=5), st.sampled_from(MARKS), st.sampled_from(PIECES)), max_size=14).map("".join)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("j’ai mal", "j'ai mal"),
        ("j\u00b4ai  mal\u00a0au\u202fventre ", "j'ai mal au ventre"),
        ("« Ça brûle », dit-elle", '"Ça brûle", dit-elle'),
        ("“hot” and „cold‟", '"hot" and "cold"'),
        ("14–18, oui—non, porte‑monnaie, −2", "14-18, oui - non, porte-monnaie, -2"),
        ("fie\u0300vre", "fièvre"),
        ("½ comprimé, 38°, 5 m²", "½ comprimé, 38°, 5 m²"),  # NFKC would lose them
        ("do\u200bu\u00adleur\ufeff\x00\x07", "douleur"),
        ("abc\u202egnp.exe\u2066", "abcgnp.exe"),
        ("e\u200d\u0301t\u00e9", "été"),  # what was hidden stood between a letter and its accent
        ("l\x92oreille \x96 \x93ici\x94 \x85", 'l\'oreille - "ici" …'),
        ("<p>Bonjour<br/>j'ai <b>m</b>al</p>", "Bonjour j'ai mal"),
        ("a<script>alert(1)</script>b<!-- c --> d<STYLE>x</STYLE>", "ab d"),
        ("&eacute;t&#233; &amp;eacute; &quot;x&quot; &nbsp;y", 'été é "x" y'),
        ("&lt;b&gt;mal&lt;/b&gt;", "mal"),
        ("<<b>b>mal", "mal"),
        ("&<b></b>lt;i&gt;mal", "mal"),
        ("température <38 et >36, R&D, doliprane&paracetamol", "température <38 et >36, R&D, doliprane&paracetamol"),
        ("<inaudible> c'est <PERSON> & <unk>", "<inaudible> c'est <PERSON> & <unk>"),
        ("a \r\n\r\n b\rc\u2028d\te", "a\nb\nc\nd e"),
        (" \u00a0 ", ""),
        ("\ud800a", "\ud800a"),  # the record's check refuses the line
    ],
)
def test_normalise_gives_one_spelling(dirty, clean):
    assert normalise(dirty) == clean
    assert normalise(clean) == clean


def test_normalise_leaves_a_clean_text_the_same_object():
    text = "Allô, j'ai mal à l'œil : 8/10, [NOM_1], 50 % ?"
    assert normalise(text) is text


def test_normalise_leaves_synthetic_calls_and_their_blocks_alone():
    texts = [turn.text for dialogue in synthesize(30, 4) for turn in dialogue.turns]
    assert sum(read_triage(text) is not None for text in texts) == 30
    assert [normalise(text) for text in texts] == texts


def test_normalise_keeps_the_quotes_and_the_form_of_a_block():
    block = '```json\n{\n  "summary": "dit « non »  puis “oui” <b> &amp;"\n}\n```'
    assert normalise(f"C’est  noté.\n\n{block}\n") == f"C'est noté.\n{block}"
    assert normalise(block + " ") == block


def test_normalise_takes_hidden_characters_out_of_a_block():
    assert normalise('ok\n```json\n{"a":\u00a0"b"}\n```') == 'ok\n```json\n{"a": "b"}\n```'  # that space is no JSON
    assert normalise('ok\n```json\r\n{"a": "b\u202ec\u200b"}\n```') == 'ok\n```json\n{"a": "bc"}\n```'


def test_normalise_mends_a_block_with_curly_quotes():
    assert normalise("ok\n```json\n{“urgency”: “U1”}\n```") == 'ok\n```json\n{"urgency": "U1"}\n```'


def test_markup_inside_a_false_block_is_removed():
    assert normalise("```json\n<script>x</script>no JSON\n```") == "```json\nno JSON\n```"


@given(WILD)
def test_normalise_twice_is_normalise_once(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not set(once) & set("\x00\u200b\u200d\u202e\u00a0\u0085\r’“—–")


@given(st.integers(1, 40))
def test_nested_markup_ends_in_no_markup(depth):
    text = "&" + "lt;b&amp;gt;" * depth + "<" * depth + "b>" * depth + "x"
    once = normalise(text)
    assert normalise(once) == once
    assert "<b>" not in once


@pytest.mark.parametrize("piece", ["<!--", "<script>", "<b ", "&amp;", "&#38;#38;", "<<b>", "« ", "```json{", " \n", "--><"])
def test_a_hostile_long_text_is_read_in_linear_time(piece):
    def seconds(count):
        runs = []
        for _ in range(3):
            started = time.perf_counter()
            normalise(piece * count)
            runs.append(time.perf_counter() - started)
        return min(runs)

    assert seconds(40_000) < 25 * max(seconds(4_000), 0.02)  # ten times the text; the square would be a hundred


def test_words_drop_case_accents_punctuation_and_block():
    assert words(["Ça, c'est l'œil !", 'NON…\n```json\n{"a": 1}\n```']) == [b"ca", b"c", b"est", b"l", b"oeil", b"non"]


def test_words_of_another_script_are_kept():
    assert words(["у меня болит"]) == ["у".encode(), "меня".encode(), "болит".encode()]
    assert words(["", "?!"]) == []


def test_tags_beyond_the_first_plane_are_removed():
    assert normalise("a\U000e0041\U000e007fb 🙂") == "ab 🙂"
