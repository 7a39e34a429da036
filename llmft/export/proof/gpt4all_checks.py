"""What gpt4all 2.8.2 makes of a GGUF: tokens and greedy answers. The desktop is the same engine, half a year younger."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.errors import MissingExtraError
from llmft.export.proof.reference import read_reference

SPARE_TOKENS = 16  # context beyond what is asked for, so that it does not begin to forget

Job = dict[str, Any]


def tokens(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Token ids of each dialogue and line from the tokenizer inside gpt4all's library; None where it is not exported.

    The package has no call for it, but on Linux and macOS the llama.cpp inside the backend is visible.
    """
    backend = _gpt4all_backend()
    if backend is None:
        return {"ids": None, "lines": None}
    parameters = backend.llama_model_default_params()
    parameters.vocab_only = True
    model = backend.llama_load_model_from_file(str(gguf_path).encode(), parameters)
    if not model:
        raise RuntimeError("gpt4all's llama.cpp cannot load the file")

    def ids(text: str, add_special: bool) -> list[int]:
        raw = text.encode()
        room = len(raw) + SPARE_TOKENS
        tokens = (ctypes.c_int32 * room)()
        count = backend.llama_tokenize(model, raw, len(raw), tokens, room, add_special, True)
        return list(tokens[:count])

    # add_special and parse_special, as the desktop calls it
    return {
        "ids": [ids(text, True) for text in job["desktop_texts"]],
        "lines": [ids(job["line_start"] + line, False) for line in job["lines"]],
    }


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


def greedy(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Greedy answers of the gpt4all package, as token ids."""
    try:
        from gpt4all import GPT4All
    except ImportError as error:
        raise MissingExtraError("gpt4all", "gpt4all") from error
    rows = read_reference(work_dir)["rows"]
    context = max(len(row["ids"]) for row in rows) + job["answer_tokens"] + SPARE_TOKENS
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
            n_predict=job["answer_tokens"],
            temp=0.0,
            top_k=1,
            repeat_penalty=1.0,
            reset_context=True,
            special=True,
        )
        answers.append(answer)
    return {"answers": answers}
