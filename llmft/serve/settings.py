"""What a service was started with."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from llmft.errors import LlmftError
from llmft.settings import Data

SYSTEM: str = Data.model_fields["system"].default  # the message that the recipes train with


@dataclass(frozen=True)
class ServeSettings:
    """One service."""

    model: Path | None = None  # a GGUF file in this process
    follows: bool = False  # the model in service, also when another one is taken
    backend_url: str | None = None  # or a server that speaks OpenAI's API
    backend_model: str = "default"  # the model's name there
    backend_key: str | None = None
    database: str | None = None  # URL; None: SQLite in ``folder``
    folder: Path | None = None  # of the desk's own files; None: the user's data folder
    host: str = "127.0.0.1"
    port: int = 8550
    tls_cert: Path | None = None
    tls_key: Path | None = None
    context_tokens: int = 2048
    slots: int = 8  # answers at once
    threads: int | None = None  # of the model; None: half of the cores
    system: str = SYSTEM
    abstain_below: float = 0.5  # confidence of the urgency under which a human decides
    max_new_tokens: int = 384
    requests_per_minute: int = 1200  # of one key; without keys, of one address
    max_body_bytes: int = 2 << 20
    live: bool = True  # triage after each patient turn while somebody listens to the call
    drift_reference: Path | None = None  # report.json of a prepared set

    def __post_init__(self) -> None:
        """Raises :class:`LlmftError` for settings that contradict each other."""
        if (self.model is None) == (self.backend_url is None):
            raise LlmftError("llmft serve needs a model: give either a GGUF file or --backend URL")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise LlmftError("TLS needs both files: give --tls-cert and --tls-key")
        if self.backend_url is not None and not self.backend_url.startswith(("http://", "https://")):
            raise LlmftError("--backend must begin with http:// or https://, as http://127.0.0.1:8080/v1")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can ask."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def has_tls(self) -> bool:
        """Whether the service itself speaks TLS."""
        return self.tls_cert is not None
