"""The chat template as the runtimes see it: rendered as GPT4All desktop does, with one first token in each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.errors import ExportError

Message = Mapping[str, str]
PLAIN_CHATS: tuple[tuple[Message, ...], ...] = (
    ({"role": "user", "content": "?"},),
    ({"role": "system", "content": "!"}, {"role": "user", "content": "?"}),
)
# the desktop alone defines toolList
ONE_BOS = "{%- if toolList is defined %}{%- set bos_token = '' %}{%- endif %}"


def render(template: str, messages: Sequence[Message], *, bos_token: str, eos_token: str, desktop: bool) -> str:
    """``messages`` up to where the assistant's turn begins.

    ``desktop`` renders as GPT4All does: it defines ``toolList`` and adds the first token itself, so that our
    templates write that token only where ``toolList`` is not defined.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    variables: dict[str, Any] = {"toolList": []} if desktop else {}
    extensions = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: time.strftime(form)
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token=bos_token, eos_token=eos_token, **variables
        )
    except TemplateError as error:
        raise ExportError(f"the chat template cannot be rendered: {error}") from error


def begins_with(template: str, bos_token: str, eos_token: str, *, desktop: bool = False) -> bool | None:
    """Whether a rendered chat begins with the first token; None when the template renders no plain chat here."""
    for chat in PLAIN_CHATS:
        try:
            text = render(template, chat, bos_token=bos_token, eos_token=eos_token, desktop=desktop)
        except ExportError:
            continue
        return bool(bos_token) and text.lstrip().startswith(bos_token)
    return None


def with_one_bos(template: str, bos_token: str, eos_token: str) -> str:
    """``template``, silent about the first token under GPT4All desktop, which writes its own.

    A template that always writes it, as most that are published, would give the model two of them there.
    """
    if not begins_with(template, bos_token, eos_token, desktop=True):
        return template
    return ONE_BOS + template
