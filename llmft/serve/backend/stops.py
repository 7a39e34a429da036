"""Text that ends an answer, also when it comes in pieces."""

from __future__ import annotations


class StopText:
    """Lets pieces through up to the first of the stop texts; what may be the beginning of one waits."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """What of the text so far can be shown now."""
        if not self._stops:
            return piece
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        waiting = max(self._beginning(text, stop) for stop in self._stops)
        self._held = text[len(text) - waiting :] if waiting else ""
        return text[: len(text) - waiting]

    def rest(self) -> str:
        """What waited and turned out to be no stop."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """How many characters at the end of ``text`` could begin ``stop``."""
        return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
