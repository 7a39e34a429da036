"""What the model reads of a call: messages that keep the template's order, without instructions to the software, and that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmft.knowledge import Lang
from llmft.prompt import ROLES, Message
from llmft.serve.triage.instructions import for_the_model
from llmft.serve.triage.screen import Said
from llmft.serve.triage.shapes import Caution

CUT = {
    "fr": "Une phrase adressée au logiciel a été tenue à l'écart du modèle ; les règles l'ont lue.",
    "en": "A sentence addressed to the software was kept from the model; the rules have read it.",
}
TOO_LONG = {
    "fr": "L'appel dépasse le contexte du modèle : {count} tours du milieu n'ont pas été lus par lui ; les règles les ont lus.",
    "en": "The call is longer than the model's context: it has not read {count} turns in the middle; the rules have.",
}


@dataclass(frozen=True)
class ModelPrompt:
    """Messages up to the patient's last turn, and what of the call they leave out."""

    messages: tuple[Message, ...]  # empty when the patient has said nothing that the model may read
    cautions: tuple[Caution, ...]
    turns_left_out: int


def model_prompt(
    turns: Sequence[Said], lang: Lang, system: str | None, count_tokens: Callable[[Sequence[Message]], int | None], room: int
) -> ModelPrompt:
    """The prompt for the operator's last turn of a masked call, at most ``room`` tokens long.

    The first turns say what the call is about and the last ones where it stands, so turns of the middle go first.
    """
    heard = [(speaker, for_the_model(text)) for speaker, text in turns]
    cautions = tuple(Caution(code="instruction", turn=n, text=CUT[lang]) for n, (_, said) in enumerate(heard) if said.was_cut)
    messages = _alternating([(speaker, said.text) for speaker, said in heard if said.text])
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    left_out = 0
    while len(messages) > 3 and (count_tokens([*start, *messages]) or 0) > room:
        over = max(2, len(messages) // 4 // 2 * 2)  # pairs, so that roles still take turns
        over = min(over, len(messages) - 3)
        over -= over % 2
        messages = messages[:1] + messages[1 + over :]
        left_out += over
    if left_out:
        cautions += (Caution(code="cut", turn=None, text=TOO_LONG[lang].format(count=left_out)),)
    return ModelPrompt((*start, *messages) if messages else (), cautions, left_out)


def _alternating(turns: Sequence[Said]) -> list[Message]:
    """Turns of one speaker in a row as one message; what the operator said last is left, as nobody has answered it."""
    messages: list[Message] = []
    for speaker, text in turns:
        role = ROLES[speaker]
        if messages and messages[-1]["role"] == role:
            messages[-1] = {"role": role, "content": f"{messages[-1]['content']} {text}"}
        else:
            messages.append({"role": role, "content": text})
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return messages
