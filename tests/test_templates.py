"""Each template is the text that its family was taught, in the Jinja that GPT4All and llama.cpp know."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from llmft.export.template import render
from llmft.prompt import TEMPLATES
from llmft.recipe import ARCHITECTURES

SYSTEM, USER, ANSWER, USER2, ANSWER2 = (
    {"role": "system", "content": " Aidez. "},
    {"role": "user", "content": "Bonjour \n"},
    {"role": "assistant", "content": "\nOù ?"},
    {"role": "user", "content": "Au dos"},
    {"role": "assistant", "content": "Bien."},
)
CHATS = {
    "system": [SYSTEM, USER, ANSWER, USER2],
    "no system": [USER, ANSWER, USER2],
    "operator first": [SYSTEM, ANSWER, USER2],
}
HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
EXPECTED = {
    "llama2": {
        "system": "<s>[INST] <<SYS>>\nAidez.\n<</SYS>>\n\nBonjour [/INST] Où ?</s>[INST] Au dos [/INST]",
        "no system": "<s>[INST] Bonjour [/INST] Où ?</s>[INST] Au dos [/INST]",
        "operator first": "<s>[INST] <<SYS>>\nAidez.\n<</SYS>>\n\n[/INST] Où ?</s>[INST] Au dos [/INST]",
    },
    "llama3": {
        "system": (
            "<s>"
            + HEAD.format("system")
            + "Aidez.<|eot_id|>"
            + HEAD.format("user")
            + "Bonjour<|eot_id|>"
            + HEAD.format("assistant")
            + "Où ?<|eot_id|>"
            + HEAD.format("user")
            + "Au dos<|eot_id|>"
            + HEAD.format("assistant")
        ),
        "no system": (
            "<s>"
            + HEAD.format("user")
            + "Bonjour<|eot_id|>"
            + HEAD.format("assistant")
            + "Où ?<|eot_id|>"
            + HEAD.format("user")
            + "Au dos<|eot_id|>"
            + HEAD.format("assistant")
        ),
        "operator first": (
            "<s>"
            + HEAD.format("system")
            + "Aidez.<|eot_id|>"
            + HEAD.format("assistant")
            + "Où ?<|eot_id|>"
            + HEAD.format("user")
            + "Au dos<|eot_id|>"
            + HEAD.format("assistant")
        ),
    },
    "tinyllama": {
        "system": (
            "<s><|system|>\nAidez.</s>\n<|user|>\nBonjour</s>\n<|assistant|>\nOù ?</s>\n<|user|>\nAu dos</s>\n<|assistant|>\n"
        ),
        "no system": "<s><|user|>\nBonjour</s>\n<|assistant|>\nOù ?</s>\n<|user|>\nAu dos</s>\n<|assistant|>\n",
        "operator first": "<s><|system|>\nAidez.</s>\n<|assistant|>\nOù ?</s>\n<|user|>\nAu dos</s>\n<|assistant|>\n",
    },
    "mistral": {
        "system": "<s>[INST] Aidez.\n\nBonjour[/INST] Où ?</s>[INST] Au dos[/INST]",
        "no system": "<s>[INST] Bonjour[/INST] Où ?</s>[INST] Au dos[/INST]",
        "operator first": "<s>[INST] Aidez.[/INST] Où ?</s>[INST] Au dos[/INST]",
    },
    "qwen": {
        "system": (
            "<|im_start|>system\nAidez.<|im_end|>\n<|im_start|>user\nBonjour<|im_end|>\n<|im_start|>assistant\nOù ?<|im_end|>\n"
            "<|im_start|>user\nAu dos<|im_end|>\n<|im_start|>assistant\n"
        ),
        "no system": (
            "<|im_start|>user\nBonjour<|im_end|>\n<|im_start|>assistant\nOù ?<|im_end|>\n"
            "<|im_start|>user\nAu dos<|im_end|>\n<|im_start|>assistant\n"
        ),
        "operator first": (
            "<|im_start|>system\nAidez.<|im_end|>\n<|im_start|>assistant\nOù ?<|im_end|>\n"
            "<|im_start|>user\nAu dos<|im_end|>\n<|im_start|>assistant\n"
        ),
    },
    "phi3": {
        "system": "<|system|>Aidez.<|end|><|user|>Bonjour<|end|><|assistant|>Où ?<|end|><|user|>Au dos<|end|><|assistant|>",
        "no system": "<|user|>Bonjour<|end|><|assistant|>Où ?<|end|><|user|>Au dos<|end|><|assistant|>",
        "operator first": "<|system|>Aidez.<|end|><|assistant|>Où ?<|end|><|user|>Au dos<|end|><|assistant|>",
    },
    "phi4": {
        "system": (
            "<|im_start|>system<|im_sep|>Aidez.<|im_end|><|im_start|>user<|im_sep|>Bonjour<|im_end|>"
            "<|im_start|>assistant<|im_sep|>Où ?<|im_end|><|im_start|>user<|im_sep|>Au dos<|im_end|>"
            "<|im_start|>assistant<|im_sep|>"
        ),
        "no system": (
            "<|im_start|>user<|im_sep|>Bonjour<|im_end|><|im_start|>assistant<|im_sep|>Où ?<|im_end|>"
            "<|im_start|>user<|im_sep|>Au dos<|im_end|><|im_start|>assistant<|im_sep|>"
        ),
        "operator first": (
            "<|im_start|>system<|im_sep|>Aidez.<|im_end|><|im_start|>assistant<|im_sep|>Où ?<|im_end|>"
            "<|im_start|>user<|im_sep|>Au dos<|im_end|><|im_start|>assistant<|im_sep|>"
        ),
    },
    "gemma": {
        "system": (
            "<s><start_of_turn>user\nAidez.\n\nBonjour<end_of_turn>\n<start_of_turn>model\nOù ?<end_of_turn>\n"
            "<start_of_turn>user\nAu dos<end_of_turn>\n<start_of_turn>model\n"
        ),
        "no system": (
            "<s><start_of_turn>user\nBonjour<end_of_turn>\n<start_of_turn>model\nOù ?<end_of_turn>\n"
            "<start_of_turn>user\nAu dos<end_of_turn>\n<start_of_turn>model\n"
        ),
        "operator first": (
            "<s><start_of_turn>user\nAidez.<end_of_turn>\n<start_of_turn>model\nOù ?<end_of_turn>\n"
            "<start_of_turn>user\nAu dos<end_of_turn>\n<start_of_turn>model\n"
        ),
    },
    "gptj": {
        "system": "Aidez.\n\nPatient:\nBonjour\n\nOpérateur:\nOù ?<|endoftext|>Patient:\nAu dos\n\nOpérateur:\n",
        "no system": "Patient:\nBonjour\n\nOpérateur:\nOù ?<|endoftext|>Patient:\nAu dos\n\nOpérateur:\n",
        "operator first": "Aidez.\n\nOpérateur:\nOù ?<|endoftext|>Patient:\nAu dos\n\nOpérateur:\n",
    },
}
# what TRL keeps of the families' own templates ─▶ ours
OWN = {"llama3": "llama3", "llama3_1": "llama3", "qwen2_5": "qwen", "qwen3_instruct_2507": "qwen", "gemma3": "gemma"}
KNOWN = (  # constructs that transformers, llama-cpp-python, llama-server and GPT4All desktop's engine all know
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem),
    *(nodes.If, nodes.For, nodes.Assign, nodes.CondExpr, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Not, nodes.Add, nodes.Filter, nodes.Test),
)


def text_of(name: str, chat: list[dict[str, str]], *, desktop: bool = False) -> str:
    return render(TEMPLATES[name].text, chat, bos_token="<s>", eos_token="</s>", desktop=desktop)


def own_template(name: str) -> str:
    """A template of a family's makers, of those that TRL keeps."""
    trl = find_spec("trl")  # to import it takes ten seconds
    assert trl is not None and trl.origin is not None
    return (Path(trl.origin).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def walk(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from walk(child)


def test_every_file_belongs_to_a_family_and_every_family_to_an_architecture():
    files = {path.name for path in resources.files("llmft.templates").iterdir() if path.name.endswith(".jinja")}
    assert files == {template.file for template in TEMPLATES.values()}
    assert {name for names in ARCHITECTURES.values() for name in names} == set(TEMPLATES) == set(EXPECTED)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_exactly_this(name, chat):
    assert text_of(name, CHATS[chat]) == EXPECTED[name][chat]


@pytest.mark.parametrize("own", OWN)
def test_the_text_is_the_one_of_the_familys_own_template(own):
    source = own_template(own)
    chat = [{"role": message["role"], "content": message["content"].strip()} for message in CHATS["system"]]
    theirs = render(source, chat, bos_token="<s>", eos_token="</s>", desktop=False)
    dated = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"  # Llama 3.1 dates its system turn
    assert (dated in theirs) == (own == "llama3_1")
    assert text_of(OWN[own], chat) == theirs.replace(dated, "")


def test_phi3s_own_line_breaks_are_swallowed_by_its_tokenizer():
    from tiny_zoo import zoo_tokenizer

    source = own_template("phi3")
    chat = [{"role": message["role"], "content": message["content"].strip()} for message in CHATS["system"]]
    theirs = render(source, chat, bos_token="<s>", eos_token="</s>", desktop=False)
    assert "<|user|>\nBonjour<|end|>\n" in theirs
    tokenizer = zoo_tokenizer("phi3")
    assert tokenizer(theirs)["input_ids"] == tokenizer(text_of("phi3", chat))["input_ids"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_constructs_that_every_runtime_knows(name):
    tree = list(walk(Environment().parse(TEMPLATES[name].text)))
    assert {type(node).__name__ for node in tree if not isinstance(node, KNOWN)} == set()
    assert {node.name for node in tree if isinstance(node, nodes.Filter)} == {"trim"}
    assert {node.name for node in tree if isinstance(node, nodes.Test)} <= {"defined"}
    assert {node.name for node in tree if isinstance(node, nodes.Name)} <= {
        *("messages", "message", "add_generation_prompt", "loop", "bos_token", "toolList", "after_system")
    }
    texts = [node.value for node in tree if isinstance(node, nodes.Const) and isinstance(node.value, str)]
    assert texts and "\n" not in "".join(part for part in TEMPLATES[name].text.split("'")[1::2])  # only as \n


@pytest.mark.parametrize("name", TEMPLATES)
def test_gpt4all_desktop_gets_the_same_text_without_the_first_token_that_it_adds_itself(name):
    for chat in CHATS.values():
        assert "<s>" + text_of(name, chat, desktop=True) in (text_of(name, chat), "<s>" + text_of(name, chat))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_grows_at_its_end_alone(name):
    """GPT4All and llama.cpp keep what they have read: a longer chat must begin with the shorter one."""
    whole = [SYSTEM, USER, ANSWER, USER2, ANSWER2, USER]
    prompts = [text_of(name, whole[:length]) for length in (2, 4, 6)]
    for before, after in pairwise(prompts):
        assert after.startswith(before)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_system_turn_alone_is_closed(name):
    """GPT4All measures the last message with the system turn alone."""
    assert "Aidez." in text_of(name, [SYSTEM]) and "Bonjour" in text_of(name, [SYSTEM, USER])
    assert text_of(name, [SYSTEM, ANSWER]).startswith(text_of(name, [SYSTEM]))
