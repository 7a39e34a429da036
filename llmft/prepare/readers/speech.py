"""What speech recognition leaves: Whisper and WhisperX segments, Amazon Transcribe; one call a file (a line, in JSONL).

Who speaks must have been found by diarisation, on the segments or on their words. Segments come in the
order of their starts; neighbours of one speaker become one turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmft.dialogue import Fault, fault_of
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.speaker_labels import speaker_of
from llmft.strict_json import parse_json
from llmft.text_files.text_source import guess_encoding, text_lines
from llmft.text_files.whole_file import read_whole

UNKNOWN_SPEAKERS = "no speaker is named; name them in the file, or run the recogniser with diarisation"
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    """A part of a recogniser's file; what we do not use is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Timed(_Entry):
    start: Seconds | None = None
    end: Seconds | None = None
    speaker: str | int | None = None


class _Word(_Timed):
    word: str


class _Segment(_Timed):
    text: str
    words: tuple[_Word, ...] | None = None


class _Whisper(_Entry):
    segments: tuple[_Segment, ...]
    language: str | None = None


class _Alternative(_Entry):
    content: str


class _Item(_Entry):
    start_time: Seconds | None = None
    end_time: Seconds | None = None
    type: str = "pronunciation"
    speaker_label: str | None = None
    alternatives: tuple[_Alternative, ...] = Field(min_length=1)


class _LabelledTime(_Entry):
    start_time: Seconds
    speaker_label: str | None = None


class _LabelledSegment(_Entry):
    speaker_label: str
    items: tuple[_LabelledTime, ...] = ()


class _SpeakerLabels(_Entry):
    segments: tuple[_LabelledSegment, ...]


class _AudioSegment(_Entry):
    transcript: str
    start_time: Seconds
    end_time: Seconds
    speaker_label: str | None = None
    channel_label: str | None = None


class _Channel(_Entry):
    channel_label: str
    items: tuple[_Item, ...]


class _Channels(_Entry):
    channels: tuple[_Channel, ...]


class _Results(_Entry):
    items: tuple[_Item, ...] = ()
    audio_segments: tuple[_AudioSegment, ...] = ()
    speaker_labels: _SpeakerLabels | None = None
    channel_labels: _Channels | None = None
    language_code: str | None = None


class _Transcribe(_Entry):
    results: _Results


def read_speech(path: Path, encoding: str | None = None) -> Iterator[RawCall | Fault]:
    """Each call of a recogniser's JSON or JSONL, or why it cannot be used."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for line in text_lines(path, encoding or guess_encoding(path), newline="\n"):
            if line.reason:
                yield Fault(str(path), line.number, "", line.reason)
            elif line.text.strip():
                yield _call(str(path), line.number, line.text)
        return
    text = read_whole(path, encoding=encoding)
    yield text if isinstance(text, Fault) else _call(str(path), 1, text)


def is_speech(value: Any) -> bool:
    """Whether a JSON value has the form of a recogniser's result, so that a format can be guessed."""
    if isinstance(value, dict):
        return isinstance(value.get("segments"), list) or isinstance(value.get("results"), dict)
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and {"text", "start"} <= set(value[0])


def join_segments(segments: Iterable[RawTurn]) -> tuple[RawTurn, ...]:
    """Neighbours of one speaker as one turn; segments without words are left out."""
    turns: list[RawTurn] = []
    texts: list[str] = []
    for segment in segments:
        words = segment.text.strip()
        if not words:
            continue
        if turns and turns[-1].speaker == segment.speaker:
            texts[-1] += f" {words}"
            ends = [end for end in (turns[-1].end, segment.end) if end is not None]
            turns[-1] = replace(turns[-1], end=max(ends, default=None))
        else:
            turns.append(segment)
            texts.append(words)
    return tuple(replace(turn, text=text) for turn, text in zip(turns, texts, strict=True))


def _call(file: str, row: int, text: str) -> RawCall | Fault:
    try:
        value = parse_json(text)
        if isinstance(value, list):
            value = {"segments": value}
        if not is_speech(value):
            return Fault(file, row, "", "neither Whisper's segments nor Amazon Transcribe's results; name a recogniser's JSON")
        segments, lang = _whisper(value) if "segments" in value else _transcribe(value)
    except ValidationError as error:
        return fault_of(error, file, row)
    except ValueError as error:  # a sentence of parse_json or of this module
        return Fault(file, row, "", str(error))
    if backward := next(
        (n for n, s in enumerate(segments) if s.start is not None and s.end is not None and s.end < s.start), None
    ):
        return Fault(file, row, f"segments[{backward}].end", "the segment ends before it starts; correct its times")
    turns = join_segments(_in_order(segments))
    if not turns:
        return Fault(file, row, "segments", "no word was recognised")
    if not any(turn.speaker for turn in turns):
        return Fault(file, row, "segments", UNKNOWN_SPEAKERS)
    return RawCall(file=file, row=row, turns=turns, lang=lang)


def _in_order(segments: list[RawTurn]) -> list[RawTurn]:
    """By their starts, when all have one; what nobody is named for belongs to the speaker before."""
    if all(segment.start is not None for segment in segments):
        segments = sorted(segments, key=lambda segment: segment.start or 0.0)
    ordered, speaker = [], next((segment.speaker for segment in segments if segment.speaker), "")
    for segment in segments:
        speaker = segment.speaker or speaker
        ordered.append(replace(segment, speaker=speaker))
    return ordered


def _whisper(value: Any) -> tuple[list[RawTurn], str | None]:
    heard = _Whisper.model_validate(value)
    return [turn for segment in heard.segments for turn in _spoken(segment)], heard.language


def _spoken(segment: _Segment) -> list[RawTurn]:
    """A segment, cut where its words change the speaker."""
    words = segment.words or ()
    speakers = {word.speaker for word in words if word.speaker is not None}
    if len(speakers) < 2:
        speaker = segment.speaker if segment.speaker is not None else next(iter(speakers), None)
        return [RawTurn(_named(speaker), segment.text, segment.start, segment.end)]
    gap = "" if any(word.word.startswith(" ") for word in words) else " "  # Whisper's words bring their own blanks
    turns: list[RawTurn] = []
    for word in words:
        speaker = _named(word.speaker) if word.speaker is not None else ""
        if turns and speaker in ("", turns[-1].speaker):
            last = turns[-1]
            turns[-1] = replace(last, text=last.text + gap + word.word, end=last.end if word.end is None else word.end)
        else:
            turns.append(RawTurn(speaker, word.word, segment.start if word.start is None else word.start, word.end))
    return turns


def _named(speaker: str | int | None) -> str:
    return "" if speaker is None else speaker_of(str(speaker))


def _transcribe(value: Any) -> tuple[list[RawTurn], str | None]:
    results = _Transcribe.model_validate(value).results
    code = results.language_code or value.get("language_code")
    lang = code.split("-")[0].lower() if isinstance(code, str) else None
    if results.audio_segments and all(s.speaker_label or s.channel_label for s in results.audio_segments):
        spoken = [
            RawTurn(speaker_of(s.speaker_label or s.channel_label or ""), s.transcript, s.start_time, s.end_time)
            for s in results.audio_segments
        ]
        return spoken, lang
    if results.channel_labels is not None:
        channels = results.channel_labels.channels
        return [turn for channel in channels for turn in _phrases(channel.items, {}, channel.channel_label)], lang
    segments = results.speaker_labels.segments if results.speaker_labels else ()
    by_start = {item.start_time: item.speaker_label or segment.speaker_label for segment in segments for item in segment.items}
    return _phrases(results.items, by_start, ""), lang


def _phrases(items: Iterable[_Item], by_start: dict[float, str], speaker: str) -> list[RawTurn]:
    """Words joined into phrases of one speaker, each ended by a full stop or a change of speaker.

    A phrase, not a whole side of the call, so that two channels can be put in order of time.
    """
    phrases: list[RawTurn] = []
    for item in items:
        words = item.alternatives[0].content
        if item.type == "punctuation" and phrases:
            phrases[-1] = replace(phrases[-1], text=phrases[-1].text + words)
            continue
        found = item.speaker_label or (by_start.get(item.start_time) if item.start_time is not None else None)
        speaker = speaker_of(found) if found else speaker
        if phrases and phrases[-1].speaker == speaker and not phrases[-1].text.endswith((".", "?", "!")):
            last = phrases[-1]
            phrases[-1] = replace(last, text=f"{last.text} {words}", end=last.end if item.end_time is None else item.end_time)
        else:
            phrases.append(RawTurn(speaker, words, item.start_time, item.end_time))
    return phrases
