"""OpenAI's paths, asked by OpenAI's own client, and a service behind a service. Run: pytest tests/test_serve_openai.py"""

from __future__ import annotations

import openai
import pytest
import tiny_engine
from tiny_desk import CHEST, SAID, Service, running, settings

from llmft.dialogue import read_triage
from llmft.engine.llama_model import load_gguf
from llmft.serve.store.checking import verify

MESSAGES = [{"role": "system", "content": tiny_engine.SYSTEM}, {"role": "user", "content": SAID}]

LONG = [{"role": "user", "content": "a " * 5000}]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(settings(tmp_path_factory.mktemp("desk"))) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def greedy() -> tuple[list[int], str, int]:
    """The model's own answer: ids, text, tokens of the prompt."""
    model = load_gguf(tiny_engine.gguf("llama3"), threads=1)
    prompt = model.prompt_ids(MESSAGES)
    ids = list(model.generate(prompt, 200))
    text = model.llama.detokenize(ids[:-1]).decode()
    model.close()
    return ids, text, len(prompt)


def test_models(client: openai.OpenAI, service: Service) -> None:
    assert [model.id for model in client.models.list()] == ["llama3"]
    assert client.models.retrieve("llama3").id == "llama3"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other")
    assert error.value.code == "model_not_found"


def test_a_completion_is_the_models_greedy_answer(client, service, greedy) -> None:
    ids, text, prompt_tokens = greedy
    answer = client.chat.completions.create(model="llama3", messages=MESSAGES, temperature=0.7, seed=3, user="x")
    assert answer.choices[0].message.content == text and answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt_tokens, len(ids))
    assert answer.system_fingerprint == service.desk.backend.facts.sha256[:16]
    sha256 = service.desk.backend.facts.sha256
    assert answer.llmft == {"red_flags": [], "floor": None, "decided_by": "model", "model": sha256}
    assert verify(service.desk.store).faults == []


def test_a_stream_says_the_same(client, greedy) -> None:
    ids, text, prompt_tokens = greedy
    parts = list(
        client.chat.completions.create(model="llama3", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == text
    assert parts[0].choices[0].delta.role == "assistant" and parts[-2].choices[0].finish_reason == "stop"
    assert (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens) == (prompt_tokens, len(ids))


@pytest.mark.parametrize("stop", [["```"], "sera", ["sera proposé", "```"]])
def test_stop_texts_end_the_answer_and_are_not_in_it(client, greedy, stop) -> None:
    _, text, _ = greedy
    stops = [stop] if isinstance(stop, str) else stop
    wanted = text[: min(text.index(one) for one in stops if one in text)]
    whole = client.chat.completions.create(model="llama3", messages=MESSAGES, stop=stop)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (wanted, "stop")
    parts = client.chat.completions.create(model="llama3", messages=MESSAGES, stop=stop, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == wanted


def test_max_tokens_cuts(client, greedy) -> None:
    ids, text, _ = greedy
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model="llama3", messages=MESSAGES, **{name: 5})
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 5)
        assert text.startswith(answer.choices[0].message.content.rstrip("\ufffd"))


LINE = "Signe d'alerte : poitrine serrée ou écrasée. Passez l'appel au 15 (ou au 112) tout de suite."


def chest(client: openai.OpenAI, **changes: object) -> tuple[str, dict[str, object]]:
    """What is said to a patient whose words raise a red flag, and what `llmft` tells; as a stream it is the same."""
    messages = [{"role": "user", "content": [{"type": "text", "text": CHEST}]}]
    asked = {"model": "default", "messages": messages, **changes}
    answer = client.chat.completions.create(**asked)
    parts = list(client.chat.completions.create(**asked, stream=True))
    assert [parts[1].choices[0].delta.content, parts[-1].llmft] == [f"{LINE}\n\n", answer.llmft]
    text = answer.choices[0].message.content
    assert "".join(part.choices[0].delta.content or "" for part in parts) == text
    return text, answer.llmft


def test_the_rules_speak_first_and_their_floor_holds(client) -> None:
    model = load_gguf(tiny_engine.gguf("llama3"), threads=1)
    own = "".join(model.stream([{"role": "user", "content": CHEST}], 20))
    model.close()
    text, told = chest(client, max_tokens=20)
    assert text == f"{LINE}\n\n{own}" and "```" not in own  # no block, so no urgency that could be too low
    assert (told["floor"], told["red_flags"], told["decided_by"]) == ("U1", ["chest_pressure"], "model")


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
        ({"n": 2}, openai.BadRequestError, "unsupported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "unsupported"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "unsupported"),
        ({"messages": []}, openai.UnprocessableEntityError, "invalid"),
        ({"messages": [{"role": "tool", "content": "x"}]}, openai.UnprocessableEntityError, "invalid"),
        ({"messages": [{"role": "user", "content": "a " * 5000}]}, openai.BadRequestError, "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": "a " * 5000}], "stream": True},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
    ],
)
def test_errors_are_openais(client, changes, kind, code) -> None:
    with pytest.raises(kind) as error:
        client.chat.completions.create(**{"model": "llama3", "messages": MESSAGES, **changes})
    assert error.value.code == code and error.value.message


def test_a_service_behind_a_service_says_the_same(service: Service, greedy, tmp_path) -> None:
    chosen = settings(tmp_path, backend_url=f"{service.url}/v1", backend_model="llama3")
    with running(chosen) as front:
        assert front.http.get("/readyz").status_code == 200
        client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(model="llama3", messages=MESSAGES)
        assert answer.choices[0].message.content == greedy[1]
        assert answer.usage.completion_tokens == len(greedy[0])
        made = front.triage(front.call(("patient", SAID)))
        assert made["urgency"]["id"] == "U3" and made["confidence"] is None and made["decided_by"] == "model"


def test_a_back_end_that_is_gone_leaves_the_rules(tmp_path) -> None:
    with running(settings(tmp_path, backend_url="http://127.0.0.1:9/v1")) as front:
        ready = front.http.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "model")
        made = front.triage(front.call(("patient", CHEST)))
        assert (made["urgency"]["id"], made["decided_by"], made["specialty"]["id"]) == ("U1", "rules", "cardiologie")
        assert [warning["code"] for warning in made["warnings"]] == ["unavailable"]
        calm = front.triage(front.call(("patient", SAID)))
        assert (calm["urgency"]["id"], calm["decided_by"], calm["escalate"]) == ("indetermine", "abstained", True)
        client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0)
        text, told = chest(client)
        triage = read_triage(text)
        assert triage is not None and (triage.urgency, triage.specialty) == ("U1", "cardiologie")
        assert told["decided_by"] == "rules"
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="default", messages=MESSAGES)
