"""Ollama's recipe for a file. Ollama does not read Jinja, so the template is written a second time in its own language."""

from __future__ import annotations

import json

from llmft.errors import ExportError
from llmft.export.template import render
from llmft.export.vocabulary.tokenizer import Vocabulary


def modelfile(file: str, vocabulary: Vocabulary, system_message: str, answer_tokens: int) -> str:
    """The text of Ollama's Modelfile for ``file``."""
    lines = [f"FROM ./{file}"]
    template = ollama_template(vocabulary)
    if template is None:
        lines.append("# Ollama's language cannot write this model's chat template; use llama.cpp's server instead.")
    else:
        lines.append(f'TEMPLATE """{template}"""')
    if system_message and '"""' not in system_message:
        lines.append(f'SYSTEM """{system_message}"""')
    lines.append(f"PARAMETER stop {json.dumps(vocabulary.eos_token, ensure_ascii=False)}")
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1.0", f"PARAMETER num_predict {answer_tokens}"]
    return "\n".join(lines) + "\n"


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
