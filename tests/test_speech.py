"""A recogniser's JSON becomes calls: speakers joined into turns, times in order, bad files one fault each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import Fault
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.speech import is_speech, join_segments, read_speech


def write(folder: Path, value: Any, name: str = "call.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), "utf-8")
    return path


def segment(speaker: Any, text: str, start: Any = 0.0, end: Any = 1.0, **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text, **({} if speaker is None else {"speaker": speaker}), **more}


def only(path: Path) -> RawCall | Fault:
    (row,) = read_speech(path)
    return row


def test_segments_of_one_speaker_become_a_turn(tmp_path):
    segments = [
        segment("SPEAKER_00", " SAMU bonjour,", 0.0, 1.5),
        segment("SPEAKER_00", " je vous écoute. ", 1.5, 2.0),
        segment("SPEAKER_00", "  ", 2.0, 2.1),
        segment("SPEAKER_01", " J'ai mal.", 2.5, 4.0, avg_logprob=-0.2, words=None),
        segment(None, " Très mal.", 4.0, 5.0),
    ]
    path = write(tmp_path, {"text": "…", "language": "fr", "segments": segments})
    turns = (
        RawTurn("SPEAKER_00", "SAMU bonjour, je vous écoute.", 0.0, 2.0),
        RawTurn("SPEAKER_01", "J'ai mal. Très mal.", 2.5, 5.0),
    )
    assert only(path) == RawCall(file=str(path), row=1, turns=turns, lang="fr")
    assert only(write(tmp_path, segments)).turns == turns  # a bare list, as faster-whisper's users save it


def test_evident_speakers_become_roles(tmp_path):
    call = only(write(tmp_path, [segment("Appelant", "a"), segment("ARM 2", "b", 1), segment(0, "c", 2, 3)]))
    assert [turn.speaker for turn in call.turns] == ["patient", "operator", "0"]


def test_a_segment_is_cut_where_its_words_change_the_speaker(tmp_path):
    words = [
        {"word": "Oui.", "start": 0.1, "end": 0.4, "score": 0.9, "speaker": "SPEAKER_00"},
        {"word": "15", "speaker": None},
        {"word": "Et", "start": 0.6, "end": 0.7, "speaker": "SPEAKER_01"},
        {"word": "vous ?", "start": 0.8, "end": 1.0, "speaker": "SPEAKER_01"},
    ]
    call = only(write(tmp_path, {"segments": [segment("SPEAKER_00", "Oui. 15 Et vous ?", words=words)]}))
    assert call.turns == (RawTurn("SPEAKER_00", "Oui. 15", 0.1, 0.4), RawTurn("SPEAKER_01", "Et vous ?", 0.6, 1.0))
    for word in words:
        word["word"] = " " + word["word"]  # Whisper's own form
    assert [t.text for t in only(write(tmp_path, {"segments": [segment(None, "…", words=words)]})).turns] == [
        "Oui. 15",
        "Et vous ?",
    ]


def test_segments_are_put_in_the_order_of_their_starts(tmp_path):
    late, early, across = segment("B", "b", 2, 3), segment("A", "a", 0, 2.5), segment("B", "hm", 1, 1.2)
    assert [turn.text for turn in only(write(tmp_path, [late, early, across])).turns] == ["a", "hm b"]
    unknown = segment("A", "a", None, None)
    assert [turn.text for turn in only(write(tmp_path, [late, unknown])).turns] == ["b", "a"]


def word(content: str, start: float, speaker: str | None = None) -> dict[str, Any]:
    item = {"type": "pronunciation", "start_time": str(start), "end_time": str(start + 0.5)}
    return {
        **item,
        "alternatives": [{"content": content, "confidence": "0.9"}],
        **({"speaker_label": speaker} if speaker else {}),
    }


def mark(content: str) -> dict[str, Any]:
    return {"type": "punctuation", "alternatives": [{"content": content, "confidence": "0.0"}]}


TURNS = (RawTurn("spk_0", "SAMU bonjour. Oui ?", 0.0, 2.5), RawTurn("spk_1", "J'ai mal.", 3.0, 4.5))
ITEMS = [
    word("SAMU", 0.0),
    word("bonjour", 1.0),
    mark("."),
    word("Oui", 2.0),
    mark("?"),
    word("J'ai", 3.0),
    word("mal", 4.0),
    mark("."),
]
ITEMS[4]["alternatives"][0]["content"] = " ?"  # as French wants it
STARTS = {"spk_0": [0.0, 1.0, 2.0], "spk_1": [3.0, 4.0]}
LABELS = {
    "segments": [
        {
            "start_time": "0.0",
            "speaker_label": speaker,
            "items": [{"start_time": str(s), "speaker_label": speaker} for s in starts],
        }
        for speaker, starts in STARTS.items()
    ]
}
OWN_LABELS = [
    {**item, "speaker_label": "spk_0" if number < 5 else "spk_1"} if item["type"] == "pronunciation" else item
    for number, item in enumerate(ITEMS)
]
AUDIO = [
    {
        "id": 0,
        "transcript": "SAMU bonjour. Oui ?",
        "start_time": "0.0",
        "end_time": "2.5",
        "speaker_label": "spk_0",
        "items": [0, 1],
    },
    {"id": 1, "transcript": "J'ai mal.", "start_time": "3.0", "end_time": "4.5", "speaker_label": "spk_1", "items": [2]},
]
CHANNELS = {
    "channels": [
        {"channel_label": "spk_1", "items": ITEMS[5:]},
        {"channel_label": "spk_0", "items": ITEMS[:5]},
    ]
}


@pytest.mark.parametrize(
    "results",
    [
        {"items": ITEMS, "speaker_labels": LABELS},
        {"items": OWN_LABELS},
        {"items": ITEMS, "audio_segments": AUDIO},
        {"channel_labels": CHANNELS, "items": []},
    ],
)
def test_amazon_transcribe_becomes_turns(tmp_path, results):
    path = write(tmp_path, {"jobName": "x", "results": {"language_code": "fr-FR", **results}, "status": "COMPLETED"})
    assert only(path) == RawCall(file=str(path), row=1, turns=TURNS, lang="fr")


def test_one_call_a_line_in_jsonl(tmp_path):
    line = json.dumps({"segments": [segment("A", "a"), segment("B", "b", 1)]})
    rows = list(read_speech(write(tmp_path, f"{line}\n\n{line[:-4]}\n{line}\n", "calls.jsonl")))
    assert [row.row if isinstance(row, RawCall) else (row.line, row.field) for row in rows] == [1, (3, ""), 4]


def test_forms_are_told_apart():
    assert is_speech({"segments": []}) and is_speech({"results": {}}) and is_speech([{"text": "", "start": 0}])
    assert not any(is_speech(value) for value in ({}, [], [1], [{"role": "user"}], "segments", None, {"segments": 1}))


BAD = {
    '{"segments": [': ("", "not whole JSON: it is cut off"),
    '{"segments": 1, "segments": []}': ("", "a key appears twice in one object"),
    '{"segments": [{"start": NaN, "text": "a"}]}': ("", "NaN is not a number of JSON"),
    '{"segments": [{"text": "\\ud800"}]}': ("", "a lone surrogate stands in the text"),
    "{}": ("", "neither Whisper's segments nor Amazon Transcribe's results"),
    json.dumps([segment("A", "secret", -1)]): ("segments[0].start", "Input should be greater than or equal to 0"),
    json.dumps([segment("A", "a"), segment("A", "secret", 3, 2)]): ("segments[1].end", "the segment ends before it starts"),
    json.dumps([segment("A", "a", "secret")]): ("segments[0].start", "Input should be a valid number"),
    json.dumps([segment("A", "a", "1e999")]): ("segments[0].start", "Input should be a finite number"),
    json.dumps({"segments": [{"speaker": "A", "start": 1}]}): ("segments[0].text", "the field is missing"),
    json.dumps({"segments": [segment(None, "secret")]}): ("segments", "no speaker is named; name them in the file"),
    json.dumps({"segments": [segment("A", " ")]}): ("segments", "no word was recognised"),
    json.dumps({"results": {"items": [{"type": "punctuation", "alternatives": []}]}}): (
        "results.items[0].alternatives",
        "Tuple should",
    ),
    "[" * 100_000: ("", "not JSON"),
}


@pytest.mark.parametrize("text", BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_bad_file_is_one_fault(tmp_path, text):
    fault = only(write(tmp_path, text))
    field, reason = BAD[text]
    assert isinstance(fault, Fault) and fault.field == field and fault.reason.startswith(reason)
    assert "secret" not in str(fault)


TIMES = st.none() | st.floats() | st.integers() | st.sampled_from(["1.5", "x", ""])
TEXTS = st.text(max_size=5) | st.none()
WORDS = st.fixed_dictionaries({}, optional={"word": TEXTS, "start": TIMES, "end": TIMES, "speaker": TEXTS})
SEGMENTS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "start": TIMES,
        "end": TIMES,
        "speaker": TEXTS | st.integers(),
        "words": st.lists(WORDS, max_size=4),
    },
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "items": st.lists(st.sampled_from([*ITEMS, *OWN_LABELS, {}, {"alternatives": [{}]}]), max_size=6) | st.none(),
        "speaker_labels": st.sampled_from([LABELS, {}, None, []]),
        "audio_segments": st.lists(st.sampled_from([*AUDIO, {}]), max_size=3),
        "channel_labels": st.sampled_from([CHANNELS, {}, None]),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)


@given(
    st.lists(SEGMENTS, max_size=5)
    | st.builds(lambda s: {"segments": s}, JSON)
    | st.builds(lambda r: {"results": r}, RESULTS)
    | JSON
)
def test_any_json_is_one_call_or_one_fault(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "call.json"
    path.write_text(json.dumps(value), "utf-8")
    row = only(path)
    assert isinstance(row, Fault) or row.turns and all(turn.speaker and turn.text.strip() for turn in row.turns)


@given(st.binary(max_size=200))
def test_any_bytes_are_one_fault(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "call.json"
    path.write_bytes(content)
    assert isinstance(only(path), Fault)


@given(st.lists(st.builds(RawTurn, st.sampled_from("AB"), st.sampled_from(["a", " b ", "", " "]), st.just(1.0), st.just(2.0))))
def test_joining_keeps_every_word_and_alternates(segments):
    turns = join_segments(segments)
    assert " ".join(turn.text for turn in turns).split() == [s.text.strip() for s in segments if s.text.strip()]
    assert all(before.speaker != after.speaker for before, after in zip(turns, turns[1:], strict=False))
