"""The chat template as the runtimes see it: rendered as GPT4All desktop does, and rewritten for Ollama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmft.errors import ExportError
from llmft.export.tokenizer import Vocabulary

Message = Mapping[str, str]


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
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, bos_token=bos_token, eos_token=eos_token, **variables
        )
    except TemplateError as error:
        raise ExportError(f"the chat template cannot be rendered: {error}") from error


def ollama_template(vocabulary: Vocabulary) -> str | None:
    """The template in Ollama's language, or None when it is not a plain chain of wrapped turns.

    The text around each turn is found by rendering turns that only hold a marker. Ollama renders one
    system, prompt and response at a time and joins them, and adds the first token itself.
    """
    system, user, answer, last = "\x01s", "\x01u", "\x01a", "\x01l"
    chain = [("user", user), ("assistant", answer), ("user", last)]

    def cut(messages: list[tuple[str, str]]) -> list[str]:
        text = render(
            vocabulary.chat_template or "",
            [{"role": role, "content": content} for role, content in messages],
            bos_token=vocabulary.bos_token,
            eos_token=vocabulary.eos_token,
            desktop=True,
        )
        pieces = []
        for _, content in messages:
            before, _, text = text.partition(content)
            pieces.append(before)
        return [*pieces, text]

    try:
        before_user, before_answer, after_answer, before_reply = cut(chain)
        before_system, after_system, *_ = cut([("system", system), *chain])
    except ExportError:
        return None
    wrapped = after_answer.endswith(before_user) and after_system.endswith(before_user)
    if before_answer != before_reply or not wrapped or not before_reply:
        return None
    after_answer = after_answer[: len(after_answer) - len(before_user)]
    after_system = after_system[: len(after_system) - len(before_user)]
    whole = (
        f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{after_system}{{{{ end }}}}"
        f"{before_user}{{{{ .Prompt }}}}{before_reply}{{{{ .Response }}}}{after_answer}"
    )
    # five actions are ours: more braces, or three quotes, would come from the template and mean something else
    return whole if whole.count("{{") == 5 and '"""' not in whole else None
