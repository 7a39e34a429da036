"""Fixtures that several test files share; bases are built once a run."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from llmft.privacy import keep_private

keep_private()  # before the first import of transformers

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from tiny import FAMILIES, tiny_base, tiny_prepared, tiny_tokenizer  # noqa: E402

settings.register_profile("llmft", deadline=None)  # a shared machine pauses at any time
settings.load_profile("llmft")


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """Family ─▶ its tiny tokenizer."""
    return {family: tiny_tokenizer(family, tmp_path_factory.mktemp(f"tokenizer-{family}")) for family in FAMILIES}


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Family ─▶ the folder of its tiny base."""
    return {family: tiny_base(family, tmp_path_factory.mktemp("bases") / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A prepared folder of synthetic calls."""
    return tiny_prepared(tmp_path_factory.mktemp("prepared"))
