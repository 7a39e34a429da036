"""What the C++ runtimes make of a GGUF. Each check runs in a process of its own, because C++ may abort.

    python -m llmft.export.proof.runtimes CHECK WORK_DIR FILE.gguf

reads WORK_DIR/job.json (and what the reference left there) and writes WORK_DIR/CHECK.json.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmft.errors import MissingExtraError
from llmft.export.proof import reference

# GPT4All cuts an answer where one of these appears; desktop 3.10 and Python 2.8.2, llmodel_shared.cpp
STOP_STRINGS = (
    *("### System", "### Instruction", "### Human", "### User", "### Response", "### Assistant", "### Context"),
    *("### Prompt", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
)
SPARE_TOKENS = 16  # context beyond what is asked for, so that no runtime begins to forget

Job = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run one check; its result goes to a file, so that what C++ prints does no harm."""
    check, work_dir, gguf_path = arguments[0], Path(arguments[1]), Path(arguments[2])
    job = json.loads((work_dir / "job.json").read_text(encoding="utf-8"))
    if check == "reference":
        reference.compute(job, work_dir)
        return 0
    result = CHECKS[check](job, work_dir, gguf_path)
    (work_dir / f"{check}.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def _rows(work_dir: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((work_dir / "reference.json").read_text(encoding="utf-8"))["rows"]
    return rows


def _llama(path: Path, job: Job, **settings: Any) -> Any:
    try:
        from llama_cpp import Llama
    except ImportError as error:
        raise MissingExtraError("llama_cpp", "export") from error
    threads = {"n_threads": job["threads"], "n_threads_batch": job["threads"]}
    return Llama(model_path=str(path), n_gpu_layers=0, verbose=False, **threads, **settings)


def llama_tokens(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Token ids of each dialogue as llama-cpp-python's chat completion makes them."""
    llm = _llama(gguf_path, job, vocab_only=True)
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    formatter = Jinja2ChatFormatter(
        template=llm.metadata["tokenizer.chat_template"], eos_token=job["eos_token"], bos_token=job["bos_token"]
    )
    ids = []
    for dialogue in job["dialogues"]:
        answer = formatter(messages=dialogue)
        ids.append(llm.tokenize(answer.prompt.encode(), add_bos=not answer.added_special, special=True))
    return {"ids": ids}


def llama_logits(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Distance between the file's logits and the reference's over every position of dialogues and answers."""
    rows = _rows(work_dir)
    longest = max(len(row["ids"]) + len(row["answer"]) for row in rows)
    llm = _llama(gguf_path, job, n_ctx=longest + SPARE_TOKENS, logits_all=True)
    divergence, agreed, positions = 0.0, 0, 0
    for number, row in enumerate(rows):
        ids = row["ids"] + row["answer"]
        llm.reset()
        llm.eval(ids)
        expected = np.load(work_dir / f"logits-{number}.npy", mmap_mode="r")  # (positions, vocabulary)
        for position in range(len(ids)):
            distance, same = _compare(expected[position], llm.scores[position])
            divergence, agreed = divergence + distance, agreed + same
        positions += len(ids)
    return {"kl": divergence / positions, "top1": agreed / positions, "positions": positions}


def _compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, bool]:
    """Kullback-Leibler divergence of ``found`` from ``expected`` in nats, and whether both prefer one token."""
    wanted, got = _log_softmax(expected), _log_softmax(found)
    return float(np.sum(np.exp(wanted) * (wanted - got))), bool(wanted.argmax() == got.argmax())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return normalised


def llama_stops(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Whether each answer ends by itself, and whether it holds a text at which GPT4All would cut it."""
    rows, limit = _rows(work_dir), job["stop_tokens"]
    longest = max(len(row["ids"]) for row in rows) + limit
    llm = _llama(gguf_path, job, n_ctx=longest + SPARE_TOKENS)
    results = []
    for row in rows:
        answer: list[int] = []
        for token in llm.generate(row["ids"], temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == llm.token_eos() or len(answer) == limit:
                break
            answer.append(token)
        text = llm.detokenize(answer).decode(errors="replace")
        cut = next((stop for stop in STOP_STRINGS if stop in text), None)
        results.append({"stopped": len(answer) < limit, "tokens": len(answer), "cut_by": cut})
    return {"answers": results}


def gpt4all_tokens(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Token ids of each dialogue from the tokenizer inside gpt4all's library; None where it is not exported.

    The package has no call for it, but on Linux and macOS the llama.cpp inside the backend is visible.
    """
    backend = _gpt4all_backend()
    if backend is None:
        return {"ids": None}
    parameters = backend.llama_model_default_params()
    parameters.vocab_only = True
    model = backend.llama_load_model_from_file(str(gguf_path).encode(), parameters)
    if not model:
        raise RuntimeError("gpt4all's llama.cpp cannot load the file")
    ids = []
    for text in job["desktop_texts"]:
        raw = text.encode()
        room = len(raw) + SPARE_TOKENS
        tokens = (ctypes.c_int32 * room)()
        # add_special and parse_special, as the desktop calls it
        count = backend.llama_tokenize(model, raw, len(raw), tokens, room, True, True)
        ids.append(list(tokens[:count]))
    return {"ids": ids}


class _ModelParameters(ctypes.Structure):
    """``llama_model_params`` of gpt4all 2.8.2, from the llama.h in its package."""

    _fields_ = (
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("rpc_servers", ctypes.c_char_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("use_mmap", ctypes.c_bool),
        ("use_mlock", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
    )


def _gpt4all_backend() -> Any:
    spec = importlib.util.find_spec("gpt4all")
    if spec is None or spec.origin is None:
        raise MissingExtraError("gpt4all", "gpt4all")
    folder = Path(spec.origin).parent / "llmodel_DO_NOT_MODIFY" / "build"
    names = ("libllamamodel-mainline-kompute.so", "libllamamodel-mainline-metal.dylib")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    backend = ctypes.CDLL(str(path))
    try:
        backend.llama_model_default_params.restype = _ModelParameters
        backend.llama_load_model_from_file.restype = ctypes.c_void_p
        backend.llama_load_model_from_file.argtypes = [ctypes.c_char_p, _ModelParameters]
        text, length, flag = ctypes.c_char_p, ctypes.c_int32, ctypes.c_bool
        backend.llama_tokenize.argtypes = [ctypes.c_void_p, text, length, ctypes.c_void_p, length, flag, flag]
    except AttributeError:
        return None
    return backend


def gpt4all_greedy(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Greedy answers of the gpt4all package, as token ids."""
    try:
        from gpt4all import GPT4All
    except ImportError as error:
        raise MissingExtraError("gpt4all", "gpt4all") from error
    rows = _rows(work_dir)
    context = max(len(row["ids"]) for row in rows) + reference.ANSWER_TOKENS + SPARE_TOKENS
    model = GPT4All(
        gguf_path.name,
        model_path=str(gguf_path.parent),
        allow_download=False,
        device="cpu",
        n_ctx=context,
        n_threads=job["threads"],
    )
    answers = []
    for text in job["desktop_texts"]:
        answer: list[int] = []

        def keep(token: int, _: bytes, answer: list[int] = answer) -> bool:
            answer.append(token)
            return True

        def keep_every_token(_: Any, keep: Callable[[int, bytes], bool] = keep) -> Callable[[int, bytes], bool]:
            return keep

        # the package's own callback is silent about a token that is half a character
        model.model._callback_decoder = keep_every_token
        # not generate(): it cannot be told to read special tokens in the prompt, which the desktop does
        model.model.prompt_model(
            text,
            "%1",
            keep,
            n_predict=reference.ANSWER_TOKENS,
            temp=0.0,
            top_k=1,
            repeat_penalty=1.0,
            reset_context=True,
            special=True,
        )
        answers.append(answer)
    return {"answers": answers}


CHECKS: dict[str, Callable[[Job, Path, Path], Any]] = {
    "llama_tokens": llama_tokens,
    "llama_logits": llama_logits,
    "llama_stops": llama_stops,
    "gpt4all_tokens": gpt4all_tokens,
    "gpt4all_greedy": gpt4all_greedy,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
