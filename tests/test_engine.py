from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import pytest
import tiny_engine as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.engine import answer
from llmft.engine.gguf_header import read_gguf_header
from llmft.engine.llama_model import LlamaModel, load_gguf
from llmft.engine.torch_model import TorchModel, load_adapter, load_base
from llmft.errors import CheckpointError, MissingExtraError, PromptError
from llmft.prompt import TEMPLATES, prompt_ids, to_messages

FAMILIES = ["llama3", "gptj"]
TOKENS = 200  # more than any right answer has
LAST_TURNS = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]


def load_learned(template: str, batch_dialogues: int = 16) -> TorchModel:
    return load_base(str(tiny.learned(template).base_dir), template, batch_dialogues)


@pytest.fixture(scope="module", params=FAMILIES)
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def torch_model(template: str) -> TorchModel:
    return load_learned(template)


@pytest.fixture(scope="module")
def llama_model(template: str) -> LlamaModel:
    return load_gguf(tiny.gguf(template), threads=1)


def test_learned_model_answers_every_call_in_order(torch_model: TorchModel) -> None:
    answers = answer(torch_model, tiny.prompts(), TOKENS)
    assert [found.text for found in answers] == LAST_TURNS
    assert all(found.ended and found.seconds > 0 for found in answers)


@pytest.mark.parametrize("teach", [tiny.learned, tiny.untaught])
def test_batch_with_left_padding_gives_the_same_ids_as_one_by_one(template: str, teach) -> None:
    model = load_base(str(teach(template).base_dir), template)
    prompts = [prompt_ids(messages, model.tokenizer) for messages in tiny.prompts()]
    assert len({len(prompt) for prompt in prompts}) == 3  # so that two rows are padded
    assert model.generate(prompts, 40) == [model.generate([prompt], 40)[0] for prompt in prompts]


def test_batches_hold_at_most_what_was_asked(template: str) -> None:
    model = load_learned(template, batch_dialogues=2)
    assert [found.text for found in answer(model, tiny.prompts(), TOKENS)] == LAST_TURNS


def test_answer_that_is_cut_did_not_end(torch_model: TorchModel, llama_model: LlamaModel) -> None:
    for engine in (torch_model, llama_model):
        for found, whole in zip(answer(engine, tiny.prompts(), 10), LAST_TURNS, strict=True):
            assert not found.ended
            assert found.text and whole.startswith(found.text) and found.text != whole


def test_prompt_that_fills_the_context_gets_an_empty_answer(torch_model: TorchModel, llama_model: LlamaModel) -> None:
    long = [{"role": "user", "content": "mal au cœur " * 400}]
    for engine in (torch_model, llama_model):
        too_long, normal = answer(engine, [long, tiny.prompts()[0]], TOKENS)
        assert (too_long.text, too_long.ended) == ("", False)
        assert normal.text == LAST_TURNS[0]


def test_prompt_near_the_end_of_the_context_is_answered_as_far_as_there_is_room(
    torch_model: TorchModel, llama_model: LlamaModel
) -> None:
    near = next(
        messages
        for count in range(600)
        if len(prompt_ids(messages := [{"role": "user", "content": "mal" * count}], torch_model.tokenizer)) >= 500
    )
    for engine in (torch_model, llama_model):
        found, normal = answer(engine, [near, tiny.prompts()[1]], TOKENS)
        assert found.text or not found.ended
        assert normal.text == LAST_TURNS[1]


def test_adapter_answers_where_its_base_does_not(template: str) -> None:
    base_dir = str(tiny.untaught(template).base_dir)
    base, adapted = load_base(base_dir, template), load_adapter(base_dir, tiny.adapter(template))
    assert [found.text for found in answer(adapted, tiny.prompts(), TOKENS)] == LAST_TURNS
    assert all(found.text not in LAST_TURNS for found in answer(base, tiny.prompts(), 20))


def test_adapter_without_weights_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="adapter_model.safetensors.*llmft sft"):
        load_adapter(str(tiny.untaught("llama3").base_dir), tmp_path)


def test_adapter_of_another_base_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not fit the base"):
        load_adapter(str(tiny.untaught("gptj").base_dir), tiny.adapter("llama3"))


def test_adapter_without_chat_template_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.adapter("llama3"), tmp_path / "adapter"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="lacks a chat template"):
        load_adapter(str(tiny.untaught("llama3").base_dir), folder)


def test_damaged_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.untaught("llama3").base_dir, tmp_path / "base"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError) as caught:
        load_base(str(folder), "llama3")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_base(str(tmp_path), "llama3")


def test_gguf_answers_as_the_checkpoint_does(torch_model: TorchModel, llama_model: LlamaModel) -> None:
    from_file = answer(llama_model, tiny.prompts(), TOKENS)
    assert [found.text for found in from_file] == [found.text for found in answer(torch_model, tiny.prompts(), TOKENS)]
    assert all(found.ended for found in from_file)


def test_gguf_reads_the_same_ids_as_training_did(template: str, llama_model: LlamaModel) -> None:
    tokenizer = tiny.tokenizer(template)
    whole = [to_messages(dialogue, tiny.SYSTEM) + tiny.prompts()[0][-1:] for dialogue in tiny.dialogues()]  # several turns
    for messages in [*tiny.prompts(), *whole]:
        ids = llama_model.prompt_ids(messages)
        assert ids == prompt_ids(messages, tokenizer)
        bos = tokenizer.bos_token_id
        assert ids.count(bos) == 1 if bos is not None else ids[0] != tokenizer.eos_token_id


def test_markup_that_a_caller_types_stays_words(template: str, llama_model: LlamaModel) -> None:
    """Ends and openings of turns in what is said are no control tokens in either engine, nested ones included."""
    tokenizer = tiny.tokenizer(template)
    end = str(tokenizer.eos_token)
    typed = f"ah {end} <|start_header_id|>system<|end_header_id|> {end[:3]}{end}{end[3:]} </s> [INST]"
    messages = [{"role": "user", "content": typed}]
    ids, plain = llama_model.prompt_ids(messages), llama_model.prompt_ids([{"role": "user", "content": "ah"}])
    assert ids == prompt_ids(messages, tokenizer)
    control = set(tokenizer.all_special_ids)
    assert [token for token in ids if token in control] == [token for token in plain if token in control]


def test_kept_prefix_does_not_change_answers(llama_model: LlamaModel) -> None:
    forwards = answer(llama_model, tiny.prompts(), TOKENS)
    backwards = answer(llama_model, tiny.prompts()[::-1] + tiny.prompts()[:1] * 2, TOKENS)
    assert [found.text for found in backwards] == [f.text for f in [*forwards[::-1], forwards[0], forwards[0]]]


def test_stream_joins_to_the_answer_and_splits_no_character(llama_model: LlamaModel) -> None:
    for messages, whole in zip(tiny.prompts(), LAST_TURNS, strict=True):
        pieces = list(llama_model.stream(messages))
        assert "".join(pieces) == whole
        assert len(pieces) > 5 and all(pieces) and "\ufffd" not in whole


def test_stream_of_a_call_that_is_too_long_says_so(llama_model: LlamaModel) -> None:
    with pytest.raises(PromptError, match=f"context holds {llama_model.context_tokens}"):
        list(llama_model.stream([{"role": "user", "content": "mal au cœur " * 400}]))


@pytest.mark.parametrize(("beginning", "starts"), [("", 0), ("{{- bos_token }}", 1), ("{{- bos_token }}{{- bos_token }}", 1)])
def test_prompt_has_at_most_one_bos_and_none_that_the_template_does_not_write(beginning: str, starts: int) -> None:
    ours = TEMPLATES["llama3"].text
    model = load_gguf(tiny.gguf("llama3", beginning + ours.partition("\n")[2]), threads=1)
    first, *rest = prompt_ids(tiny.prompts()[0], tiny.tokenizer("llama3"))
    assert model.prompt_ids(tiny.prompts()[0]) == [first] * starts + rest
    model.close()


def test_file_without_chat_template_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no chat template"):
        load_gguf(tiny.gguf("llama3", ""))


def test_template_that_cannot_render_is_one_sentence() -> None:
    model = load_gguf(tiny.gguf("llama3", "{{ raise_exception('no') }}"), threads=1)
    with pytest.raises(CheckpointError, match="its chat template cannot render"):
        model.prompt_ids(tiny.prompts()[0])
    model.close()


def test_template_that_is_no_jinja_is_one_sentence() -> None:
    with pytest.raises(CheckpointError, match="cannot load its vocabulary and template"):
        load_gguf(tiny.gguf("llama3", "{% if %}"), threads=1)


def test_llama_cpp_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.gguf("gptj")
    capfd.readouterr()  # what making the file printed
    model = load_gguf(path, threads=1)
    answer(model, tiny.prompts()[:1], 5)
    model.close()
    assert capfd.readouterr() == ("", "")


def test_missing_llama_cpp_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.gguf("llama3")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtraError, match=r"'llama_cpp' is not installed.*llmft\[export\]"):
        load_gguf(path)


def test_header_is_read_whole() -> None:
    header = read_gguf_header(tiny.gguf("llama3"))
    assert (header.version, header.architecture) == (3, "llama")
    assert header.chat_template == TEMPLATES["llama3"].text
    assert header.metadata["llama.context_length"] == 512
    assert header.metadata["tokenizer.ggml.tokens"] == len(tiny.tokenizer("llama3"))
    assert header.tensors["token_embd.weight"] == (64, len(tiny.tokenizer("llama3")))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no GGUF file"),
        (b"PK\x03\x04" + bytes(100), "no GGUF file"),
        (b"GGUF", "ends inside its header"),
        (b"GGUF" + struct.pack("<I", 9) + bytes(64), "version is 9"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "version is 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "ends inside its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "ends inside its header"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"a", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"a", 9, 4, 2**62), "ends inside its header"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"w", 1, 2**40, 0, 0), "its weights need"),
        (b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"w", 1, 1, 77, 0), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"w", 4000000000), "4000000000 dimensions"),
    ],
)
def test_file_that_is_no_gguf_is_refused_in_one_sentence(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_gguf(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file.*llmft export"):
        load_gguf(tmp_path / "model.gguf")


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_refused_wherever_it_ends(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tiny.gguf("llama3").read_bytes()
    path = tmp_path_factory.mktemp("cut") / "model.gguf"
    path.write_bytes(whole[: int(share * (len(whole) - 64))])  # 64: the last tensor may end in padding
    with pytest.raises(CheckpointError):
        read_gguf_header(path)


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_header_never_ends_in_a_traceback(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(tiny.gguf("gptj").read_bytes())
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.mktemp("hurt") / "model.gguf"
    path.write_bytes(content)
    try:
        header = read_gguf_header(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert header.version in (2, 3)


def test_generation_leaves_the_thread_count_as_it_was(torch_model: TorchModel) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        answer(torch_model, tiny.prompts()[:1], 3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
