"""A call in the terminal: the model's words as they come, and its triage block as a small table."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmft.dialogue import Triage, read_triage
from llmft.errors import PromptError
from llmft.knowledge import Lang
from llmft.prompt import Message
from llmft.protocol.heard_language import heard_language
from llmft.settings import Data
from llmft.vocabulary import icd10_labels, slot_labels, specialties, urgencies

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from llmft.engine.llama_model import LlamaModel

SYSTEM: str = Data.model_fields["system"].default
NOTICE = "aide à la décision — pas un dispositif médical / decision support, not a medical device"
HELP = "/new : nouvel appel, new call · /quit : quitter, leave"
FENCE = "```json"
COLOURS = {"U1": "bold white on red", "U2": "bold yellow", "U3": "bold cyan", "U4": "bold green", "indetermine": "bold magenta"}
MAX_NEW_TOKENS = 512  # a model that loops must not keep the caller waiting for the whole context
LABELS: dict[Lang, dict[str, str]] = {
    "fr": {
        "urgency": "urgence",
        "specialty": "spécialité",
        "icd10": "CIM-10",
        "red_flags": "signes d'alerte",
        "summary": "résumé",
        "missing_info": "à demander",
        "escalate": "régulation",
        "yes": "oui, tout de suite",
        "no": "non",
    },
    "en": {
        "urgency": "urgency",
        "specialty": "specialty",
        "icd10": "ICD-10",
        "red_flags": "red flags",
        "summary": "summary",
        "missing_info": "still to ask",
        "escalate": "escalate",
        "yes": "yes, at once",
        "no": "no",
    },
}


def chat(gguf_path: Path, *, once: str | None = None, system: str | None = None, threads: int | None = None) -> int:
    """Hold calls with a GGUF until the user leaves, or answer ``once`` and stop; returns the exit code.

    ``system`` None: the message that the recipes train with; an empty text: no system message.
    Raises :class:`CheckpointError` for a file that cannot be loaded.
    """
    from rich.console import Console

    from llmft.engine.llama_model import load_gguf

    console = Console(highlight=False)
    opening = _opening(SYSTEM if system is None else system)
    model = load_gguf(gguf_path, threads=threads)
    try:
        console.print(NOTICE, style="dim", markup=False)
        if once is not None:
            return 0 if speak(model, console, [*opening, {"role": "user", "content": _typed(once)}]) else 1
        return _converse(model, console, opening)
    except KeyboardInterrupt:
        console.print()
        return 0 if once is None else 130
    finally:
        model.close()


def _converse(model: LlamaModel, console: Console, opening: list[Message]) -> int:
    console.print(HELP, style="dim", markup=False)
    messages = list(opening)
    while True:
        try:
            said = _typed(console.input("[bold]patient ›[/bold] "))
            if not sys.stdin.isatty():  # a script speaks: show its words, so that the transcript is whole
                console.print(printable(said), markup=False)
        except EOFError:
            console.print()
            return 0
        if said in ("/quit", "/exit"):
            return 0
        if said == "/new":
            messages = list(opening)
        elif said:
            try:
                answer = speak(model, console, [*messages, {"role": "user", "content": said}])
            except PromptError as error:
                console.print(f"{error} (/new)", markup=False)
                continue
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answer}] if answer else []


def _opening(system: str) -> list[Message]:
    return [{"role": "system", "content": system}] if system else []


def _typed(text: str) -> str:
    """What was typed, with bytes that were no UTF-8 replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()


def speak(model: LlamaModel, console: Console, messages: Sequence[Message]) -> str:
    """Print the operator's next turn as it is written, its triage as a table; returns the whole turn."""
    heard: list[str] = []
    console.print("opérateur › ", style="bold", end="", markup=False)
    for piece in visible(_recorded(model.stream(messages, MAX_NEW_TOKENS), heard)):
        console.print(printable(piece), end="", markup=False, soft_wrap=True)
    console.print()
    answer = "".join(heard).strip()
    if not answer:
        console.print("(pas de réponse / no answer)", style="dim", markup=False)
    triage = read_triage(answer)
    if triage is not None:
        console.print(triage_table(triage, guess_language(messages)))
    return answer


def _recorded(pieces: Iterable[str], heard: list[str]) -> Iterator[str]:
    for piece in pieces:
        heard.append(piece)
        yield piece


def visible(pieces: Iterable[str]) -> Iterator[str]:
    """What of a streamed turn the patient's side should read: all but a triage block.

    Text that may be the beginning of the fence waits until it is clear; a block that turns out unreadable is shown.
    """
    text, shown = "", 0
    for piece in pieces:
        text += piece
        end = _before_fence(text)
        if end > shown:
            yield text[shown:end]
            shown = end
    hidden = text[shown:]
    if read_triage(text) is not None:
        hidden = re.sub(r"```json.*?```", "", hidden, count=1, flags=re.DOTALL)
    if hidden.strip():
        yield hidden


def _before_fence(text: str) -> int:
    """Where the fence begins, or what may become one, or the white space before it."""
    start = text.find(FENCE)
    if start < 0:
        start = next(len(text) - size for size in range(len(FENCE) - 1, -1, -1) if text.endswith(FENCE[:size]))
    return len(text[:start].rstrip())


def printable(text: str) -> str:
    """``text`` without control characters, which could command the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))


def guess_language(messages: Sequence[Message]) -> Lang:
    """The language of the patient's turns: French unless they are clearly English."""
    return heard_language(message["content"] for message in messages if message["role"] == "user")


def triage_table(triage: Triage, lang: Lang) -> Table:
    """The triage in words; what is empty has no row."""
    from rich.box import ROUNDED
    from rich.table import Table
    from rich.text import Text

    labels, level, specialty = LABELS[lang], urgencies()[triage.urgency], specialties()[triage.specialty]
    table = Table(box=ROUNDED, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    urgency = f"{triage.urgency} · {level.fr if lang == 'fr' else level.en}"
    table.add_row(labels["urgency"], Text(urgency, style=COLOURS[triage.urgency]))
    values = {
        "specialty": specialty.fr if lang == "fr" else specialty.en,
        "icd10": "\n".join(_code_in_words(code, lang) for code in triage.icd10),
        "red_flags": ", ".join(_slot_in_words(slot, lang) for slot in triage.red_flags),
        "summary": triage.summary,
        "missing_info": ", ".join(_slot_in_words(slot, lang) for slot in triage.missing_info),
        "escalate": labels["yes" if triage.escalate else "no"],
    }
    for name, value in values.items():
        if value.strip():
            table.add_row(labels[name], Text(printable(value)))  # Text: brackets such as [NOM] are no markup
    return table


def _slot_in_words(slot: str, lang: Lang) -> str:
    label = slot_labels().get(slot)
    return slot.replace("_", " ") if label is None else label.of(lang)


def _code_in_words(code: str, lang: Lang) -> str:
    label = icd10_labels().get(code)
    return code if label is None else f"{code} · {label.of(lang)}"
