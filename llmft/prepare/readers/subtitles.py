"""Subtitles of a call: SRT and WebVTT, speakers as ``<v Name>`` or ``Name:``, one call a file.

A cue without a speaker goes on with the speaker before it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from llmft.dialogue import Fault
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.speaker_labels import Label, labels_in, speaker_of
from llmft.prepare.readers.speech import UNKNOWN_SPEAKERS, join_segments
from llmft.text_files.whole_file import read_whole

_STAMP = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"^[^\S\n]*{_STAMP}[^\S\n]*-->[^\S\n]*{_STAMP}[^\n]*$", re.MULTILINE)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[^\S\n]+([^>\n]{1,80})>")
_TAG = re.compile(r"</?[a-zA-Z][^>\n]{0,80}>|<\d[\d:.]*>|\{\\[^}\n]{0,40}\}")


def read_subtitles(path: Path, encoding: str | None = None) -> Iterator[RawCall | Fault]:
    """The one call of a ``.srt`` or ``.vtt`` file, or why it cannot be used."""
    text = read_whole(path, encoding=encoding)
    yield text if isinstance(text, Fault) else _call(str(path), text)


def _call(file: str, text: str) -> RawCall | Fault:
    timings = list(_TIMING.finditer(text))
    if not timings:
        return Fault(file, 1, "", "no cue such as 00:00:01.000 --> 00:00:03.000 was found; is this SRT or WebVTT?")
    segments: list[RawTurn] = []
    for number, timing in enumerate(timings, start=1):
        start, end = _seconds(timing.groups()[:4]), _seconds(timing.groups()[4:])
        if end < start:
            line = text.count("\n", 0, timing.start()) + 1
            return Fault(file, line, f"cues[{number}].end", "the cue ends before it starts; correct its times")
        after = timings[number].start() if number < len(timings) else len(text)
        segments.append(RawTurn("", _words(text[timing.end() : after]), start, end))
    spoken = _with_speakers(segments)
    if not any(segment.speaker for segment in spoken):
        return Fault(file, 1, "cues", UNKNOWN_SPEAKERS)
    return RawCall(file=file, row=1, turns=join_segments(spoken))


def _words(body: str) -> str:
    """A cue's lines, without the blank line after it and what follows (the next cue's name, a note)."""
    return body.strip("\n").split("\n\n", 1)[0]


def _with_speakers(cues: list[RawTurn]) -> list[RawTurn]:
    """Each cue cut where its speaker changes; which names are speakers is judged over the whole call."""
    if any("<v" in cue.text for cue in cues):
        named = [(cue, _voices(cue.text)) for cue in cues]
    else:
        cues = [RawTurn("", _plain(cue.text), cue.start, cue.end) for cue in cues]
        named = _named_in_text(cues)
    segments, speaker = [], ""
    for cue, labels in named:
        edges = [(0, 0, speaker), *((label.start, label.end, label.speaker) for label in labels)]
        for (_, begin, who), (end, _, _) in zip(edges, [*edges[1:], (len(cue.text), 0, "")], strict=True):
            if words := " ".join(_plain(cue.text[begin:end]).split()):
                segments.append(RawTurn(who, words, cue.start, cue.end))
        speaker = edges[-1][2]
    return segments


def _voices(text: str) -> list[Label]:
    return [Label(found.start(), found.end(), speaker_of(html.unescape(found[1]))) for found in _VOICE.finditer(text)]


def _named_in_text(cues: list[RawTurn]) -> list[tuple[RawTurn, list[Label]]]:
    labels = [label for label in labels_in("\n".join(cue.text for cue in cues)) if label.fact is None]
    named, offset, place = [], 0, 0
    for cue in cues:
        inside = []
        while place < len(labels) and labels[place].start <= offset + len(cue.text):
            label = labels[place]
            inside.append(Label(label.start - offset, min(label.end - offset, len(cue.text)), label.speaker))
            place += 1
        named.append((cue, inside))
        offset += len(cue.text) + 1
    return named


def _plain(text: str) -> str:
    """Without tags and character references."""
    return html.unescape(_TAG.sub("", text)) if "<" in text or "&" in text or "{" in text else text


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction}")
