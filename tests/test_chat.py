from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import tiny_engine as tiny
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llmft.chat import NOTICE, SYSTEM, chat, guess_language, printable, triage_table, visible
from llmft.dialogue import Triage
from llmft.engine.llama_model import LlamaModel
from llmft.errors import CheckpointError
from llmft.recipe import Data

SAID = tiny.CALLS[0][1]
TRIAGE = Triage(
    urgency="U1",
    specialty="cardiologie",
    icd10=("A09.9", "Z99.9"),
    red_flags=("travel_fever_confusion", "unheard_of"),
    summary="douleur de [NOM] \x1b[31mserrée",
    missing_info=("onset",),
    escalate=True,
)
TURN = f"J'appelle le 15.\n{TRIAGE.as_block()}"


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in zip(places, places[1:], strict=False)]


def shown(triage: Triage, lang: str) -> str:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(triage_table(triage, lang))  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Lines that somebody types, then Ctrl-D."""

    def type_lines(*lines: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return type_lines


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    """The messages of every turn that the real model is asked for."""
    calls: list[list[dict[str, str]]] = []
    stream = LlamaModel.stream

    def listen(self, messages, max_new_tokens=None):
        calls.append(list(messages))
        return stream(self, messages, max_new_tokens)

    monkeypatch.setattr(LlamaModel, "stream", listen)
    return calls


@given(st.lists(st.integers(0, 10_000), max_size=20))
def test_block_is_hidden_however_the_stream_is_cut(cuts: list[int]) -> None:
    assert "".join(visible(pieces_of(TURN, cuts))) == "J'appelle le 15."
    assert "".join(visible(pieces_of(f"{TURN}\nAu revoir.", cuts))).split("\n") == ["J'appelle le 15.", "", "Au revoir."]


@given(st.lists(st.integers(0, 10_000), max_size=20), st.text(alphabet="`json a\n", max_size=40))
def test_text_without_a_triage_is_shown_whole(cuts: list[int], text: str) -> None:
    assert "".join(visible(pieces_of(text, cuts))).rstrip() == text.rstrip()


def test_text_is_shown_before_the_turn_ends() -> None:
    stream = iter(["Bon", "jour ", "``", "du", " soir"])
    seen = visible(stream)
    assert [next(seen), next(seen)] == ["Bon", "jour"]
    assert next(stream) == "``"  # nothing beyond what was shown has been read


def test_unreadable_block_is_shown() -> None:
    broken = 'Bien.\n```json\n{"urgency": "U1"}\n```'
    assert "".join(visible([broken])) == broken


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("é\x1b[2J\x07\r\u202e\x9b\n\tœ") == "é[2J\n\tœ"


def test_table_is_in_words_of_the_language() -> None:
    french, english = shown(TRIAGE, "fr"), shown(TRIAGE, "en")
    assert "U1 · urgence vitale" in french and "U1 · life-threatening" in english
    assert "A09.9 · gastro, diarrhée infectieuse" in french and "A09.9 · gastro, tummy bug" in english
    assert "Z99.9" in french  # a code without a label stands alone
    assert "confusion ou somnolence" in french and "unheard of" in french
    assert "depuis quand" in french and "since when" in english
    assert "douleur de [NOM] [31mserrée" in french  # brackets are no markup, escapes are gone


def test_table_has_no_row_for_what_is_empty() -> None:
    calm = TRIAGE.model_copy(
        update={"red_flags": (), "missing_info": (), "icd10": (), "urgency": "indetermine", "escalate": False}
    )
    table = shown(calm, "fr")
    assert "signes d'alerte" not in table and "CIM-10" not in table and "à demander" not in table
    assert "indetermine · à décider par un humain" in table and "non" in table


@pytest.mark.parametrize(
    ("said", "lang"),
    [
        ("J'ai mal à la tête depuis hier", "fr"),
        ("I have had a headache since yesterday", "en"),
        ("Hello, my son is hot", "en"),
        ("ok", "fr"),
        ("", "fr"),
    ],
)
def test_language_is_french_unless_clearly_english(said: str, lang: str) -> None:
    messages = [
        {"role": "system", "content": "the and is"},
        {"role": "assistant", "content": "le la"},
        {"role": "user", "content": said},
    ]
    assert guess_language(messages) == lang


@pytest.mark.parametrize("template", ["llama3", "gptj"])
def test_once_prints_the_answer_with_its_table(template: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.gguf(template)
    capfd.readouterr()  # what making the file printed
    assert chat(path, once=SAID, system=tiny.SYSTEM, threads=1) == 0
    out, err = capfd.readouterr()
    assert NOTICE in out.replace("\n", " ")
    assert "J'appelle le 15." in out and "urgence vitale" in out and "R07.4" in out
    assert "json" not in out and '"urgency"' not in out and err == ""


def test_once_without_an_answer_fails(capsys: pytest.CaptureFixture[str]) -> None:
    # the whole answer stands in the prompt already, and all that the model has left to write is its end
    whole = f"{tiny.SYSTEM}\n\nPatient:\n{SAID}\n\nOpérateur:\n{tiny.dialogues()[0].turns[-1].text}"
    assert chat(tiny.gguf("gptj", f"{{% raw %}}{whole}{{% endraw %}}"), once=SAID, threads=1) == 1
    assert "(pas de réponse / no answer)" in capsys.readouterr().out


def test_system_message_is_the_recipes_own_unless_given(heard: list[list[dict[str, str]]]) -> None:
    assert Data(folder="x").system == SYSTEM
    for system in (None, "", tiny.SYSTEM):
        chat(tiny.gguf("gptj"), once=SAID, system=system, threads=1)
    said = {"role": "user", "content": SAID}
    assert heard == [
        [{"role": "system", "content": SYSTEM}, said],
        [said],
        [{"role": "system", "content": tiny.SYSTEM}, said],
    ]


def test_call_goes_on_until_new_and_quit(typed, heard: list[list[dict[str, str]]], capsys: pytest.CaptureFixture[str]) -> None:
    typed(SAID, "", "Et maintenant ?", "/new", SAID, "/quit", "jamais lu")
    assert chat(tiny.gguf("llama3"), system=tiny.SYSTEM, threads=1) == 0
    answer = {"role": "assistant", "content": tiny.dialogues()[0].turns[-1].text}
    system, said = {"role": "system", "content": tiny.SYSTEM}, {"role": "user", "content": SAID}
    assert heard == [[system, said], [system, said, answer, {"role": "user", "content": "Et maintenant ?"}], [system, said]]
    assert capsys.readouterr().out.count("J'appelle le 15.") >= 2


def test_ctrl_d_leaves_quietly(typed, capsys: pytest.CaptureFixture[str]) -> None:
    typed()
    assert chat(tiny.gguf("llama3"), threads=1) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("once", "code"), [(None, 0), (SAID, 130)])
def test_ctrl_c_in_the_middle_of_an_answer_leaves_quietly(once, code: int, typed, monkeypatch, capsys) -> None:
    def interrupted(self, messages, max_new_tokens=None):
        yield "Bon"
        raise KeyboardInterrupt

    monkeypatch.setattr(LlamaModel, "stream", interrupted)
    typed(SAID)
    assert chat(tiny.gguf("llama3"), once=once, threads=1) == code
    assert capsys.readouterr().err == ""


def test_call_that_is_too_long_goes_on_after_a_sentence(typed, capsys: pytest.CaptureFixture[str]) -> None:
    typed("mal au cœur " * 400, SAID)
    assert chat(tiny.gguf("llama3"), system=tiny.SYSTEM, threads=1) == 0
    out = capsys.readouterr().out
    assert "the context holds 512" in out and "J'appelle le 15." in out


def test_bytes_that_are_no_text_are_no_traceback(typed) -> None:
    typed("mal \udce9 au c\udcff")
    assert chat(tiny.gguf("llama3"), threads=1) == 0


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(CheckpointError, match="is damaged"):
        chat(tmp_path / "model.gguf", once=SAID)
