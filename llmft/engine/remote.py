"""A model behind a URL that speaks OpenAI's chat completions: llama-server, vLLM, Ollama, or another llmft.

A request that times out or is answered with nonsense is a failure of the model on that call; a server that
answers nobody is an error. What a server says in its errors is not passed on, as it may quote the call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from llmft.engine import Answer
from llmft.errors import BackendError, MissingExtraError
from llmft.prompt import Message, control_pattern, spoken_only

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0  # for a whole answer
CONNECT_S = 5.0
AT_ONCE = 8  # requests
DEAD_AFTER = 5  # calls in a row without any answer
KEY_VARIABLE = "LLMFT_API_KEY"
# The server's vocabulary is unknown, so nobody may say what any family reads as the end of a turn.
MARKUP = control_pattern(("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"))


@dataclass(frozen=True)
class RemoteModel:
    """A server and its name for the model."""

    client: httpx.Client
    name: str

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See :class:`llmft.engine.Engine`; raises :class:`BackendError` for a server that answers no call any more."""
        silent = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = {pool.submit(self._answer, chat, max_new_tokens): index for index, chat in enumerate(conversations)}
            try:
                for done in as_completed(asked):
                    found = done.result()
                    silent = silent + 1 if found.failure else 0
                    if silent >= DEAD_AFTER:
                        raise BackendError(
                            f"{self.client.base_url} failed on {silent} calls in a row ({found.failure}); "
                            "look at that server and run again: calls that were answered are kept"
                        )
                    yield asked[done], found
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, messages: Sequence[Message], max_new_tokens: int) -> Answer:
        import httpx

        body = {
            "model": self.name,
            "messages": spoken_only(messages, MARKUP),
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        started = perf_counter()
        try:
            answer = self.client.post("chat/completions", json=body)
            answer.raise_for_status()
            choice = answer.json()["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except httpx.TimeoutException:
            return Answer("", False, perf_counter() - started, "time_out")
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return Answer("", False, perf_counter() - started, "engine")
        is_text = isinstance(text, str)
        return Answer(
            text.strip() if is_text else "", is_text and reason == "stop", perf_counter() - started, None if is_text else "engine"
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def open_remote(url: str, *, timeout_s: float = TIMEOUT_S) -> RemoteModel:
    """The model at ``url``, as http://127.0.0.1:8080/v1, or ``url#NAME`` where the server has several.

    A key is read from LLMFT_API_KEY. Raises :class:`BackendError` for a server that does not list its models.
    """
    try:
        import httpx
    except ImportError:
        raise MissingExtraError("httpx", "evaluate") from None
    address, _, name = url.partition("#")
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
    try:
        client = httpx.Client(base_url=address.rstrip("/") + "/", headers=headers, timeout=timeout, trust_env=False)
        listed = client.get("models")
        listed.raise_for_status()
        names = [str(model["id"]) for model in listed.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BackendError(f"{address} does not answer ({type(error).__name__}); start that server, or mend --model") from None
    except (ValueError, KeyError, TypeError):
        raise BackendError(f"{address} lists its models in no form of OpenAI's; mend --model, which ends in /v1") from None
    if not names or (name and name not in names):
        raise BackendError(f"{address} has no model {name or 'at all'}; it lists: {', '.join(names) or 'none'}")
    return RemoteModel(client, name or names[0])
