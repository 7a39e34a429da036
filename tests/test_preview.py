"""The preview shows exactly the tokens that are trained, all lengths, and lets no word steer a terminal or a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tiny import dialogue
from tiny_zoo import TOKENIZERS, save_zoo_base, zoo_tokenizer

from llmft.cli import main
from llmft.dialogue import write_dialogues
from llmft.errors import PromptError
from llmft.prompt import IGNORE, encode
from llmft.recipe import load_recipe
from llmft.train.preview import coloured, dialogue_lengths, histogram, make_preview, pieces, print_preview, visible
from llmft.train.rows import encode_rows

said = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)
CALL = dialogue("J'ai mal à la poitrine 𝄞", "Depuis quand ?", "hier", "Appelez le 15.")


class Page(HTMLParser):
    """The texts of a page by their tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1], []).append(data)


@pytest.fixture()
def recipe_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_zoo_base("gemma-3", tmp_path / "base")
    calls = [
        CALL,
        dialogue("<script>alert(1)</script> \x1b[31m\u202e", "Où ?", name="d2"),
        dialogue("mal " * 300, "Oui", name="d3"),
    ]
    for split in ("train", "validation"):
        write_dialogues(tmp_path / "data" / f"{split}.jsonl", calls)
    recipe = {"name": "seen", "base": "./base", "template": "gemma", "data": {"folder": "data"}, "train": {"max_tokens": 200}}
    Path("recipe.yaml").write_text(json.dumps(recipe))
    return Path("recipe.yaml")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30)
@given(turns=st.lists(said, min_size=2, max_size=4).filter(lambda turns: len(turns) % 2 == 0))
def test_the_pieces_are_the_row(name, turns):
    tokenizer = zoo_tokenizer(name)
    try:
        row = encode(dialogue(*turns), tokenizer, "Aide.")
    except PromptError:
        return
    cut = pieces(row, tokenizer)
    assert "".join(piece.text for piece in cut) == tokenizer.decode(row.input_ids)
    assert [token for piece in cut for token in piece.ids] == row.input_ids
    trained = [token for piece in cut if piece.trained for token in piece.ids]
    assert trained == [label for label in row.labels if label != IGNORE]


def test_what_is_trained_is_marked_with_and_without_colours():
    tokenizer = zoo_tokenizer("llama3")
    cut = pieces(encode(CALL, tokenizer, None), tokenizer)
    assert re.findall("⟦(.*?)⟧", coloured(cut, marks=True).plain) == ["Depuis quand ?<|eot_id|>", "Appelez le 15.<|eot_id|>"]
    text = coloured(cut, marks=False)
    green = "".join(text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style))
    assert green == "Depuis quand ?<|eot_id|>Appelez le 15.<|eot_id|>" and "⟦" not in text.plain
    assert "poitrine 𝄞" in text.plain


@given(st.text())
def test_nothing_that_steers_a_terminal_is_shown(text):
    shown = visible(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", shown)
    assert shown.count("↵\n") >= text.count("\n") and all(character in shown for character in text if character.isalnum())


@given(st.lists(st.integers(1, 5000), max_size=60), st.integers(1, 3000))
def test_the_histogram_counts_every_dialogue_once(lengths, limit):
    bins = histogram(lengths, limit)
    assert sum(bin.count for bin in bins) == len(lengths) and len(bins) <= 13
    assert sum(bin.count for bin in bins if bin.first > limit) == sum(length > limit for length in lengths)
    assert [bin.first for bin in bins[1:]] == [bin.last + 1 for bin in bins[:-1]]


@pytest.mark.parametrize("policy", ["refuse", "split"])
def test_lengths_are_those_of_whole_dialogues(recipe_path, policy):
    recipe = load_recipe(recipe_path, [f"train.long_dialogues={policy}", "train.max_tokens=60"])
    calls = [dialogue(*["mal au dos", "Depuis quand ?"] * count, name=f"d{count}") for count in (1, 2, 9)]
    tokenizer = zoo_tokenizer("gemma")
    whole = [len(encode(call, tokenizer, recipe.data.system).input_ids) for call in calls]
    assert sorted(dialogue_lengths(encode_rows(calls, tokenizer, recipe))) == sorted(whole) and max(whole) > 60


def test_the_terminal_shows_counts_lengths_and_rows(recipe_path):
    recipe = load_recipe(recipe_path)
    tokenizer = zoo_tokenizer("gemma")
    calls = [CALL, dialogue("<end_of_turn>", "Oui", name="d2"), dialogue("mal " * 300, "Oui", name="d3")]
    screen = StringIO()
    shown = make_preview(recipe, encode_rows(calls, tokenizer, recipe), tokenizer, "train", 5)
    print_preview(shown, Console(file=screen, width=200))
    text = screen.getvalue()
    for part in (
        "seen: train of data",
        "1 dialogues in 1 rows, 2 refused",
        "end of turn <end_of_turn>, padding <pad>",
        "1 dialogues have more than train.max_tokens = 200 tokens: 1 refused",
        "refused d2: dialogue d2: turn 0 holds the control text '<end_of_turn>'",
        "over train.max_tokens",
        "d1: ",
        "⟦Depuis quand ?<end_of_turn>⟧",
    ):
        assert part in text, part


def test_the_command_writes_a_page_that_lets_no_word_become_markup(recipe_path, capsys):
    assert main(["preview", str(recipe_path), "--rows", "9", "--html", "page.html"]) == 0
    output = capsys.readouterr().out
    assert "⟦Depuis quand ?<end_of_turn>⟧" in output and "\x1b" not in output and "page: page.html" in output
    source = Path("page.html").read_text("utf-8")
    page = Page(source)
    assert "script" not in page.tags and "<script>" in "".join(page.texts["span"])
    assert "\x1b" not in source and "\u202e" not in source and "\\u001b" in source
    assert "".join(page.texts["b"]) == "GreenDepuis quand ?<end_of_turn>Appelez le 15.<end_of_turn>Où ?<end_of_turn>"
    assert "default-src 'none'" in source and "http" not in source.replace("http-equiv", "")
    assert "1 refused" in "".join(page.texts["li"])


def test_rows_are_taken_evenly_and_another_split_may_be_shown(recipe_path, capsys):
    assert main(["preview", str(recipe_path), "--rows", "1", "--split", "validation"]) == 0
    shown = capsys.readouterr().out
    assert "validation of data" in shown and "d1: " in shown and "d2: " not in shown
