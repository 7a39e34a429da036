"""A GGUF file in llama.cpp: greedy answers and streaming, with the chat template that is in the file."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from llmft.engine import Answer
from llmft.engine.gguf_header import GgufHeader, read_gguf_header
from llmft.errors import CheckpointError, LlmftError, MissingExtraError, PromptError
from llmft.prompt import Message, control_pattern, spoken_only

CONTEXT_TOKENS = 2048  # opened unless asked otherwise; the cache of a long context would fill the memory


@dataclass(frozen=True)
class LlamaModel:
    """A model in llama.cpp, its vocabulary, and the formatter of its template."""

    path: Path
    llama: Any  # llama_cpp.Llama; it keeps the prompt's common beginning in its cache between answers
    formatter: Any  # llama_cpp.llama_chat_format.Jinja2ChatFormatter
    bos_id: int | None  # None: the family has no first token
    markup: re.Pattern[str]  # what nobody may say, because llama.cpp would read it as a control token

    @property
    def context_tokens(self) -> int:
        """Tokens of the prompt and the answer together."""
        return int(self.llama.n_ctx())

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See :class:`llmft.engine.Engine`."""
        for index, messages in enumerate(conversations):
            started = perf_counter()
            row = list(self.generate(self.prompt_ids(messages), max_new_tokens))
            ended = bool(row) and self.is_end(row[-1])
            text = self.llama.detokenize(row).decode("utf-8", "replace").strip()
            yield index, Answer(text, ended, perf_counter() - started)

    def stream(self, messages: Sequence[Message], max_new_tokens: int | None = None) -> Iterator[str]:
        """The answer piece by piece, never half a character; None: as long as there is room.

        Raises :class:`PromptError` when the conversation leaves no room for an answer.
        """
        prompt = self.prompt_ids(messages)
        if len(prompt) >= self.context_tokens:
            raise PromptError(
                f"the call has {len(prompt)} tokens and the context holds {self.context_tokens}; "
                "start a new call or open a longer context"
            )
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        limit = self.context_tokens if max_new_tokens is None else max_new_tokens
        for token in self.generate(prompt, limit):
            if piece := decoder.decode(self.llama.detokenize([token])):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids from which the model writes the operator's next turn, with exactly one BOS if the family has one."""
        try:
            text = self.formatter(messages=spoken_only(messages, self.markup)).prompt
        except Exception as error:  # the template is foreign code and may raise anything
            raise CheckpointError(f"{self.path}: its chat template cannot render the call ({type(error).__name__})") from None
        ids: list[int] = self.llama.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=True)
        if self.bos_id is None:
            return ids
        first = next((place for place, token in enumerate(ids) if token != self.bos_id), len(ids))
        return [self.bos_id, *ids[first:]]

    def text_ids(self, text: str) -> list[int]:
        """Token ids of words in an answer, none of them a control token."""
        return list(self.llama.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=False))

    def generate(self, prompt: list[int], max_new_tokens: int) -> Iterator[int]:
        """Greedy token ids, up to and with the token that ended the answer, as long as the context has room."""
        room = min(max_new_tokens, self.context_tokens - len(prompt))
        if room < 1 or not prompt:
            return
        tokens = self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0)
        try:
            for token in islice(tokens, room):
                yield int(token)
                if self.is_end(token):
                    return
        except RuntimeError as error:
            raise LlmftError(
                f"{self.path}: llama.cpp stopped in the middle of an answer ({error}); try a shorter context"
            ) from error

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends an answer: EOS or any other token that llama.cpp counts as an end."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(self.llama.model), token))

    def close(self) -> None:
        """Give the memory back."""
        self.llama.close()


def load_gguf(path: Path, *, context_tokens: int = CONTEXT_TOKENS, threads: int | None = None) -> LlamaModel:
    """Load a GGUF; ``threads`` None: half of the logical cores, as llama.cpp's threads spin when they share one.

    Raises :class:`CheckpointError` for a file that is damaged, that llama.cpp does not know, or without a template.
    """
    header = read_gguf_header(path)
    if header.chat_template is None:
        raise CheckpointError(f"{path} holds no chat template; export it with: llmft export")
    llama_cpp = _llama_cpp()
    trained_tokens = header.metadata.get(f"{header.architecture}.context_length", context_tokens)
    count = threads or max(1, (os.cpu_count() or 2) // 2)
    try:
        llama = llama_cpp.Llama(
            str(path),
            n_ctx=min(context_tokens, trained_tokens),
            n_threads=count,
            n_threads_batch=count,
            verbose=False,
        )
    except Exception as error:  # ValueError from llama.cpp, any error of Jinja from the template
        reason = "llama.cpp does not know its architecture, tokenizer or tensors"
        raise CheckpointError(f"{path} cannot be loaded ({type(error).__name__}): {reason}; export it again") from error
    markup = control_pattern(_control_tokens(llama_cpp, llama))
    return LlamaModel(path, llama, _formatter(llama_cpp, llama, header), _bos_id(llama_cpp, llama), markup)


def _formatter(llama_cpp: Any, llama: Any, header: GgufHeader) -> Any:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)

    def text(token: int) -> str:
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(vocabulary, token).decode("utf-8", "replace")

    return Jinja2ChatFormatter(
        template=header.chat_template,
        eos_token=text(llama.token_eos()),
        bos_token=text(llama.token_bos()),
        stop_token_ids=[llama.token_eos()],
    )


def _control_tokens(llama_cpp: Any, llama: Any) -> list[str]:
    """Texts of the tokens that are not words, such as the end of a turn."""
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    kinds = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    tokens = (token for token in range(llama.n_vocab()) if llama_cpp.llama_vocab_get_attr(vocabulary, token) & kinds)
    return [llama_cpp.llama_vocab_get_text(vocabulary, token).decode("utf-8", "replace") for token in tokens]


def _bos_id(llama_cpp: Any, llama: Any) -> int | None:
    wants_bos = llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llama.model))
    return int(llama.token_bos()) if wants_bos and llama.token_bos() >= 0 else None


def _llama_cpp() -> Any:
    try:
        import llama_cpp
    except ImportError:
        raise MissingExtraError("llama_cpp", "export") from None
    return llama_cpp
