"""What GPT4All desktop 3.10, its last release, demands of a file.

The desktop is frozen, so what it can run is a fixed list. Sources: gpt4all-backend/src/llamamodel.cpp, the llama.cpp
fork of September 2024 inside it, and minja of January 2025, whose Jinja is a part of the language.
"""

from __future__ import annotations

import re

from llmft.errors import ExportError
from llmft.export.sources import Sources
from llmft.export.template import render
from llmft.recipe import GEMMA2_LAYERS

ARCHITECTURES = ("llama", "qwen2", "phi2", "phi3", "gemma2")  # of those that export writes
INSTEAD = "export it for llama.cpp: --profile llama.cpp, or export.profile: llama.cpp"
SPLITTINGS = ("default", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-2", "smollm")
# of its list models3.json: a file of such a name would become that model, and its settings with it
OWN_FILES = {
    *("meta-llama-3-8b-instruct.q4_0.gguf", "meta-llama-3.1-8b-instruct-128k-q4_0.gguf", "llama-3.2-1b-instruct-q4_0.gguf"),
    *("llama-3.2-3b-instruct-q4_0.gguf", "nous-hermes-2-mistral-7b-dpo.q4_0.gguf", "mistral-7b-instruct-v0.1.q4_0.gguf"),
    *("mistral-7b-openorca.gguf2.q4_0.gguf", "gpt4all-falcon-newbpe-q4_0.gguf", "orca-2-7b.q4_0.gguf", "orca-2-13b.q4_0.gguf"),
    *("wizardlm-13b-v1.2.q4_0.gguf", "ghost-7b-v0.9.1-q4_0.gguf", "nous-hermes-llama2-13b.q4_0.gguf"),
    *("gpt4all-13b-snoozy-q4_0.gguf", "mpt-7b-chat-newbpe-q4_0.gguf", "mpt-7b-chat.gguf4.q4_0.gguf"),
    *("phi-3-mini-4k-instruct.q4_0.gguf", "orca-mini-3b-gguf2-q4_0.gguf", "replit-code-v1_5-3b-newbpe-q4_0.gguf"),
    *("starcoder-newbpe-q4_0.gguf", "rift-coder-v0-7b-q4_0.gguf", "all-minilm-l6-v2-f16.gguf", "all-minilm-l6-v2.gguf2.f16.gguf"),
    *("em_german_mistral_v01.q4_0.gguf", "nomic-embed-text-v1.f16.gguf", "nomic-embed-text-v1.5.f16.gguf"),
    *("qwen2-1_5b-instruct-q4_0.gguf", "qwen2.5-coder-7b-instruct-q4_0.gguf", "deepseek-r1-distill-qwen-1.5b-q4_0.gguf"),
    *(
        "deepseek-r1-distill-qwen-7b-q4_0.gguf",
        "deepseek-r1-distill-qwen-14b-q4_0.gguf",
        "deepseek-r1-distill-llama-8b-q4_0.gguf",
    ),
}
OWN_NAMES = {
    *("llama 3 instruct", "llama 3 8b instruct", "llama 3.1 8b instruct 128k", "llama 3.2 1b instruct", "llama 3.2 3b instruct"),
    *("nous hermes 2 mistral dpo", "mistral instruct", "mistral openorca", "gpt4all falcon", "orca 2 (medium)", "orca 2 (full)"),
    *("wizard v1.2", "ghost 7b v0.9.1", "hermes", "snoozy", "mpt chat", "phi-3 mini instruct", "mini orca (small)", "replit"),
    *("starcoder", "rift coder", "sbert", "em german mistral", "nomic embed text v1", "nomic embed text v1.5"),
    *("qwen2-1.5b-instruct", "reasoner v1", "deepseek-r1-distill-qwen-1.5b", "deepseek-r1-distill-qwen-7b"),
    *("deepseek-r1-distill-qwen-14b", "deepseek-r1-distill-llama-8b"),
}
# minja's language, as far as it is smaller than Jinja's
FILTERS = {
    *("tojson", "items", "last", "trim", "lower", "default", "e", "escape", "joiner", "count", "dictsort", "join", "length"),
    *("safe", "string", "int", "list", "unique", "select", "reject", "map", "indent", "selectattr", "rejectattr", "equalto"),
}
FUNCTIONS = FILTERS | {"raise_exception", "namespace", "range", "strftime_now", "regex_replace"}
TESTS = {"none", "boolean", "integer", "float", "number", "string", "mapping", "iterable", "sequence", "defined"}
METHODS = {"append", "pop", "insert", "items", "get", "strip", "endswith", "title", "cycle"}
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # training marks, which both engines skip


def require_desktop(sources: Sources, *, has_parts: bool = False) -> None:
    """Raise ExportError, with what to do, for a model that the desktop cannot run or would run wrongly."""
    model, vocabulary, other = sources.model, sources.vocabulary, INSTEAD
    if model.architecture not in ARCHITECTURES:
        raise ExportError(f"GPT4All desktop 3.10 cannot run {model.architecture} (it runs {', '.join(ARCHITECTURES)}); {other}")
    require_known_splitting(vocabulary.splitting.pre)
    if model.architecture == "gemma2" and model.layers not in GEMMA2_LAYERS:
        raise ExportError(f"GPT4All desktop 3.10 aborts on a Gemma 2 of {model.layers} layers (it runs 26, 42 and 46); {other}")
    if has_parts:
        raise ExportError(f"GPT4All desktop lists each part of a split file as a model; leave --split-gb out, or {other}")
    if vocabulary.chat_template is None:
        raise ExportError(
            "GPT4All desktop cannot chat without a chat template; give the adapter's tokenizer one (chat_template.jinja)"
        )
    faults = template_faults(vocabulary.chat_template, vocabulary.bos_token, vocabulary.eos_token)
    if faults:
        raise ExportError(f"GPT4All desktop 3.10 cannot use the chat template: {faults[0]}; write it without, or {other}")


def require_known_splitting(pre: str) -> None:
    """Raise ExportError for a pre-tokenizer, in llama.cpp's words, that the desktop would not follow."""
    if pre not in SPLITTINGS:
        raise ExportError(f"GPT4All desktop 3.10 does not know the pre-tokenizer {pre!r}; {INSTEAD}")


def template_faults(template: str, bos_token: str, eos_token: str) -> list[str]:
    """What the desktop's Jinja engine does not know, in the words of the template; empty when it can use it."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tree = Environment().parse(GENERATION.sub("", template))
    except TemplateSyntaxError as error:
        return [f"line {error.lineno}: {error.message}"]
    faults = _unknown_names(tree) + _unknown_slices(tree)
    if faults:
        return faults
    # it renders the last message alone with the system message to measure its length
    alone = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
    try:
        text = render(GENERATION.sub("", template), alone, bos_token=bos_token, eos_token=eos_token, desktop=True)
    except ExportError as error:
        return [f"it must render a system and a user message alone ({error})"]
    return ["it begins with the first token, which the desktop adds itself"] if bos_token and text.startswith(bos_token) else []


def _unknown_names(tree: object) -> list[str]:
    from jinja2 import nodes

    assert isinstance(tree, nodes.Template)
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    found = [(node.lineno, f"the filter {node.name!r}") for node in tree.find_all(nodes.Filter) if node.name not in FILTERS]
    found += [(node.lineno, f"the test {node.name!r}") for node in tree.find_all(nodes.Test) if node.name not in TESTS]
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr not in METHODS:
            found.append((call.lineno, f"the method {call.node.attr!r}"))
        if isinstance(call.node, nodes.Name) and call.node.name not in FUNCTIONS | macros | {"loop", "caller"}:
            found.append((call.lineno, f"the function {call.node.name!r}"))
    return [f"line {line}: {words} is unknown to it" for line, words in sorted(found)]


def _unknown_slices(tree: object) -> list[str]:
    from jinja2 import nodes

    assert isinstance(tree, nodes.Template)
    stepped = [node for node in tree.find_all(nodes.Slice) if node.step is not None]
    return [f"line {node.lineno}: a slice with a step is unknown to it" for node in stepped]
