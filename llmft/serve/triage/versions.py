"""Hashes of what makes an answer beside the model: the rules, and the prompt."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from llmft.engine.triage_grammar import triage_grammar

RULE_FILES = ("red_flags.yaml", "stances.yaml", "specialties.yaml", "urgencies.yaml", "icd10.yaml")


@cache
def rules_version() -> str:
    """SHA-256 over the files that the rules read, in order."""
    folder = resources.files("llmft.knowledge")
    protocols = sorted((file for file in (folder / "protocols").iterdir() if file.name.endswith(".yaml")), key=lambda f: f.name)
    digest = hashlib.sha256()
    for file in (*(folder / name for name in RULE_FILES), *protocols):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def prompt_version(template_digest: str, system: str) -> str:
    """SHA-256 over the chat template's hash, the system message and the grammar."""
    return hashlib.sha256("\x00".join((template_digest, system, triage_grammar())).encode()).hexdigest()
