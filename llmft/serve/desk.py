"""What one running service holds, made once and handed to every request."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmft import __version__
from llmft.serve.backend import Backend
from llmft.serve.live import Feeds
from llmft.serve.monitor.meters import Meters
from llmft.serve.settings import ServeSettings
from llmft.serve.store.database import Store
from llmft.serve.triage.masking import HeardWords
from llmft.serve.triage.shapes import Versions
from llmft.serve.triage.versions import prompt_version, rules_version


@dataclass(frozen=True)
class Desk:
    """The open database, the model, and what lives in memory alone."""

    settings: ServeSettings
    store: Store
    backend: Backend
    meters: Meters
    heard: HeardWords = field(default_factory=HeardWords)
    feeds: Feeds = field(default_factory=Feeds)

    def versions(self, roster: str | None) -> Versions:
        """What makes the answers now."""
        facts = self.backend.facts
        prompt = prompt_version(facts.prompt, self.settings.system)
        return Versions(
            llmft=__version__, model=facts.sha256, adapter=facts.adapter, prompt=prompt, rules=rules_version(), roster=roster
        )
