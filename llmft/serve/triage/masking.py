"""Personal data out of a call's turns as they come.

What a turn names is often known from the turns before ("Who is calling?", "Dupont"), so the words of the
open calls stay in this process's memory, a bounded number of calls, and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from llmft.deidentify.stage import Deidentified, deidentify
from llmft.knowledge import Lang
from llmft.serve.triage.screen import Said, Screening, joined, screen
from llmft.serve.triage.shapes import Mask

CALLS_HEARD = 512  # open calls whose words are kept in memory
TURNS_READ = 40  # before a new one; names told earlier were replaced where they were told


class HeardWords:
    """The words of open calls as they were typed, in memory alone."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, dict[int, str]] = OrderedDict()
        self._lock = Lock()

    def of(self, call_id: str, masked: Sequence[str]) -> list[str]:
        """The turns as typed; as masked where they are not known any more."""
        with self._lock:
            typed = dict(self._calls.get(call_id, {}))
        return [typed.get(number, text) for number, text in enumerate(masked)]

    def typed(self, call_id: str, number: int) -> str | None:
        """One turn as typed; None where it is not known any more."""
        with self._lock:
            return self._calls.get(call_id, {}).get(number)

    def keep(self, call_id: str, number: int, text: str) -> None:
        """Remember a turn; the call that was silent longest is forgotten when there are too many."""
        with self._lock:
            self._calls.setdefault(call_id, {})[number] = text
            self._calls.move_to_end(call_id)
            while len(self._calls) > CALLS_HEARD:
                self._calls.popitem(last=False)

    def forget(self, call_id: str) -> None:
        """The call is over."""
        with self._lock:
            self._calls.pop(call_id, None)


def masked_turn(before: Sequence[str], text: str, lang: Lang) -> Deidentified:
    """``text`` without personal data, read after the turns ``before``; the last text of the answer is its own."""
    return deidentify((*before[-TURNS_READ:], text), lang)


def masks_of(done: Deidentified, number: int = -1) -> tuple[Mask, ...]:
    """What was replaced in one text."""
    pairs = zip(done.spans[number], done.placeholders[number], strict=True)
    return tuple(Mask(start=s.start, end=s.end, label=s.label, placeholder=placeholder) for s, placeholder in pairs)


def masked_call(turns: Sequence[Said], lang: Lang) -> tuple[list[Said], Deidentified]:
    """A whole call at once."""
    done = deidentify([text for _, text in turns], lang)
    return [(speaker, text) for (speaker, _), text in zip(turns, done.texts, strict=True)], done


def screen_typed(masked: Sequence[Said], typed: Sequence[str], lang: Lang) -> Screening:
    """What the rules read in the masked words, and what in the words as typed where those are known.

    A flag that only the typed words raise stands without quote, as its words may name somebody.
    """
    found = screen(masked, lang)
    if list(typed) == [text for _, text in masked]:
        return found
    known = {flag.id for flag in found.flags}
    raw = screen([(speaker, text) for (speaker, _), text in zip(masked, typed, strict=True)], lang)
    hidden = (flag.model_copy(update={"quote": "", "span": None}) for flag in raw.flags if flag.id not in known)
    return joined(found, Screening(tuple(hidden), (), None))
