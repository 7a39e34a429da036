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


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL that runs for the tests alone."""
    from tiny_store import running_postgresql

    with running_postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, monkeypatch):
    """An empty store of the desk, in each of its databases."""
    from tiny_store import new_database, quick_folder

    from llmft.serve.store.database import open_store

    url = new_database(request.getfixturevalue("postgresql")) if request.param == "postgresql" else None
    with quick_folder() as folder:
        monkeypatch.setenv("LLMFT_VAULT", str(folder / "vault"))
        opened = open_store(url, folder / "desk")
        yield opened
        opened.close()
