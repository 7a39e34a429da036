"""Proof that a file's vocabulary cuts text as the tokenizer that it was made from does.

It runs in a process of its own beside the export, because llama.cpp may abort on a vocabulary that it does not like:

    python -m llmft.export.vocabulary.check VOCABULARY.gguf TOKENIZER.json START
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llmft
from llmft.errors import CheckpointError
from llmft.privacy import keep_private

TIME_LIMIT_S = 300.0
CHECKED: set[str] = set()  # vocabularies that this process has compared already
# accents, cases, digits, emoji, code, right to left, white space: what splitting rules trip over
LINES = (
    "Bonjour, j'ai très mal à la poitrine depuis 2 h, ça serre et ça descend dans le bras gauche.",
    "Où êtes-vous ? À l'hôpital Édouard-Herriot, 3e étage, n° 12 ; l'été dernier aussi, c'était pareil…",
    "J'AI 1234567 € D'ACOMPTES, L'ÉTÉ À 39,5 °C ; QU'EST-CE QUE C'EST ?",
    "I'LL say we've seen it, don't worry; she CAN'T, it's the patient's. 'S 'll",
    "Hello, my 3-month-old baby's fever is 39.5 °C and she won't drink since 10:45 pm!!",
    "Aspirine 75 mg, 1x/j ; TA 17/9, SpO2 94%, FC 110-120/min, +33 1 23 45 67 89",
    "tabs\tand\nlines\n\n\n  and   spaces   between  ",
    "👩‍⚕️🫀 😟 emoji 🏳️‍🌈 œuf Æ ß ñ ü İ",
    "مرحبا عندي ألم في الصدر — שלום — 你好，我胸口疼。 ありがとう",
    "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": None}  # ok\n",
    '```json\n{"urgency": "U1", "icd10": ["R07.4"], "escalate": true}\n```',
    "____ !!! ... /// \\\\ -- -> => :-) a_b  c__d",
    "a",
)


@contextmanager
def checked_vocabulary(vocabulary: bytes, tokenizer_path: Path, start: str, scratch: Path) -> Iterator[None]:
    """Compare while the block runs, and raise CheckpointError at its end when a line is cut otherwise.

    ``vocabulary`` is a GGUF without weights, written to ``scratch`` meanwhile; ``start`` a token that begins a chat.
    Without llama-cpp-python nothing can be compared, and the structure alone was recognised.
    """
    scratch.unlink(missing_ok=True)  # of an export that was killed
    seen = hashlib.sha256(vocabulary + tokenizer_path.read_bytes() + start.encode()).hexdigest()
    if seen in CHECKED or find_spec("llama_cpp") is None or find_spec("tokenizers") is None:
        yield
        return
    scratch.write_bytes(vocabulary)
    try:
        with _comparison([str(scratch), str(tokenizer_path), start], tokenizer_path):
            yield
    finally:
        scratch.unlink(missing_ok=True)
    CHECKED.add(seen)


@contextmanager
def _comparison(arguments: list[str], tokenizer_path: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "llmft.export.vocabulary.check", *arguments]
    paths = os.pathsep.join(filter(None, (str(Path(llmft.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    child: subprocess.Popen[bytes] = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, **streams)  # type: ignore[call-overload]
    try:
        yield
        said, _ = child.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{tokenizer_path}: llama.cpp did not read its vocabulary in {TIME_LIMIT_S:g} seconds") from None
    finally:
        child.kill()
        child.wait()
    if child.returncode != 0:
        found = said.decode("utf-8", "replace").strip() or "llama.cpp cannot read the vocabulary made from it"
        raise CheckpointError(f"{tokenizer_path}: {found}; a model with this tokenizer would read other text than it learnt")


def main(arguments: list[str]) -> int:
    """Print the first built-in line that is cut otherwise; 0 when there is none."""
    from llama_cpp import Llama
    from tokenizers import Tokenizer

    keep_private()
    try:
        llm = Llama(arguments[0], vocab_only=True, verbose=False)
    except Exception as error:  # of the chat template too, which llama-cpp-python parses here
        print(f"llama.cpp cannot load its vocabulary and template ({type(error).__name__})")
        return 1
    tokenizer: Any = Tokenizer.from_file(arguments[1])
    tokenizer.no_truncation()
    for line in LINES:
        text = arguments[2] + unicodedata.normalize("NFC", line)
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        if llm.tokenize(text.encode(), add_bos=False, special=True) != expected:
            print(f"llama.cpp cuts the line {line[:40]!r} into other tokens")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
