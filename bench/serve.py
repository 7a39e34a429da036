"""Fifty operators at once on `llmft serve`, each with scripted calls; then one user against bare llama-cpp-python.

    .venv/bin/python bench/serve.py                       # ten minutes, and about two more for the rest
    .venv/bin/python bench/serve.py --minutes 1 --operators 20
    .venv/bin/python bench/serve.py --minutes 0           # all but the operators, whose part of the result file stays
    sudo chrt -r 1 .venv/bin/python bench/serve.py --minutes 0 --rounds 60   # where the machine does other work, too

What is measured, on 127.0.0.1 alone, and against which bar:

    start        from the command to /readyz: 3 s, and the seconds of a core that it took
    operators    each opens a call, says its turns with pauses, asks for a triage and judges it, again and again. No error; no
                 answer that is lost (all that was acknowledged stands in the database) or crossed (what a call shows is what
                 was said in it); p95 of everything but generation at most 50 ms; the server's memory flat; the place in the
                 line shown to those who wait
    one user     time to the model's first word of a stream, against llama_cpp.Llama.create_chat_completion with the same
                 file and threads, in turns, on calls without red flag (where there is one the rules speak first, before the
                 model has): at most 1.3 times. Other work on the machine costs the service more than the library, for a
                 thread that wakes and finds no idle core waits behind the model's; chrt keeps that work away
    eight users  tokens a second of eight streams at once, against bare llama-cpp-python serving them one by one: 2 times, and
                 what one pass for eight tokens gives against eight passes, which is the most that could be had

The server runs in a process of its own, with keys and a database as in use. The clients share its cores, so their clocks
measure both. Writes bench/results/serve.json; stops by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import func, select

from llmft.dialogue import Dialogue
from llmft.engine.llama_context import Cells
from llmft.engine.parallel_llama import open_parallel
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.serve.settings import SYSTEM
from llmft.serve.store.checking import verify
from llmft.serve.store.database import open_store
from llmft.serve.store.keys import add_key
from llmft.serve.store.tables import answers, feedback, turns
from llmft.serve.triage.screen import screen

LLMFT = str(Path(sys.executable).with_name("llmft"))
MODEL = Path("export/demo-llama/demo-llama-Q4_0.gguf")
RESULT = Path("bench/results/serve.json")
BARS = {"ready_s": 3.0, "p95_ms": 50.0, "first_word_ratio": 1.3, "throughput_ratio": 2.0, "memory_growth_mb": 20.0}
SAMPLE_S = 2.0


@dataclass
class Seen:
    """What the operators saw."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    triage_s: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    crossed: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    memory_mb: list[tuple[float, float]] = field(default_factory=list)  # seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the fifty operators")
    parser.add_argument("--operators", type=int, default=50)
    parser.add_argument("--pause", type=float, default=4.0, help="mean seconds between what is said in a call")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--threads", type=int, default=1, help="of the model, here and there; the clients need a core, too")
    parser.add_argument("--rounds", type=int, default=30, help="of the single user")
    arguments = parser.parse_args()
    calls = synthesize(count=200, seed=11)
    with tempfile.TemporaryDirectory(prefix="llmft-bench-") as folder:
        result = measured(arguments, list(calls), Path(folder))
    if not arguments.minutes and RESULT.is_file():
        result = with_operators_of(json.loads(RESULT.read_text("utf-8")), result)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(json.dumps(result["verdicts"], indent=1))


def measured(arguments: argparse.Namespace, calls: list[Dialogue], folder: Path) -> dict[str, Any]:
    """All parts, one after the other."""
    os.environ["LLMFT_VAULT"] = str(folder / "vault")
    store = open_store(None, folder / "desk")
    keys = [add_key(store, "operator", f"operator-{n}") for n in range(arguments.operators)]
    store.close()
    server, url, ready_s = started(arguments, folder / "desk")
    ready_cpu_s = cpu_s(server.pid)
    try:
        seen = asyncio.run(operators(url, keys, calls, arguments, server.pid))
        single = single_user(url, keys[0], calls, arguments)
        crowd = asyncio.run(eight_users(url, keys[0], calls, arguments, server.pid))
    finally:
        server.terminate()
        server.wait(60)
    stored = kept(folder / "desk")
    result = {"machine": machine(), "model": arguments.model.name, "minutes": arguments.minutes, "operators": arguments.operators}
    result |= {
        "pause_s": arguments.pause,
        "threads": arguments.threads,
        "ready_s": round(ready_s, 2),
        "ready_cpu_s": round(ready_cpu_s, 2),
        "bars": BARS,
    }
    result |= {"work": shown(seen), "stored": stored, "one_user": single, "eight_users": crowd}
    return result | {"verdicts": verdicts(result, seen, stored)}


def with_operators_of(before: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """An earlier result with what is new."""
    new = {name: result[name] for name in ("ready_s", "ready_cpu_s", "one_user", "eight_users")}
    verdicts = {name: result["verdicts"][name] for name in ("ready", "first word", "eight users")}
    return {**before, **new, "verdicts": {**before["verdicts"], **verdicts}}


def started(arguments: argparse.Namespace, desk: Path) -> tuple[subprocess.Popen[bytes], str, float]:
    """The service in a process of its own, its address, and how long it took to be ready."""
    port = random.randint(20_000, 40_000)
    url = f"http://127.0.0.1:{port}"
    command = [LLMFT, "serve", str(arguments.model), "--desk", str(desk), "--port", str(port), "--rate", "100000"]
    command += ["--threads", str(arguments.threads), "--despite-gate"]  # the service is measured, not the model
    begun = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        if server.poll() is not None:
            raise SystemExit(f"the service has stopped with {server.returncode}")
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return server, url, time.perf_counter() - begun
        except httpx.TransportError:
            time.sleep(0.02)


def cpu_s(pid: int) -> float:
    """Seconds of a core that a process has used, all of its threads together."""
    user, system = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def operators(url: str, keys: list[str], calls: list[Dialogue], arguments: argparse.Namespace, pid: int) -> Seen:
    """All operators at once until the time is over."""
    seen = Seen()
    begun = time.monotonic()
    until = begun + arguments.minutes * 60
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        work = [operator(client, key, calls, n, arguments.pause, until, seen) for n, key in enumerate(keys)]
        await asyncio.gather(memory(pid, begun, until, seen), *work)
    return seen


async def memory(pid: int, begun: float, until: float, seen: Seen) -> None:
    """Resident memory of the server, now and then."""
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        seen.memory_mb.append((round(time.monotonic() - begun, 1), round(kilobytes / 1024, 1)))
        await asyncio.sleep(SAMPLE_S)


async def operator(
    client: httpx.AsyncClient, key: str, calls: list[Dialogue], number: int, pause: float, until: float, seen: Seen
) -> None:
    """One operator: call after call."""
    chance = random.Random(number)
    headers = {"Authorization": f"Bearer {key}"}
    await asyncio.sleep(chance.uniform(0, pause))
    while time.monotonic() < until:
        dialogue = chance.choice(calls)
        try:
            await one_call(client, headers, dialogue, chance, pause, until, seen)
        except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
            seen.errors[f"{type(error).__name__}: {error}"[:120]] += 1


async def one_call(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    dialogue: Dialogue,
    chance: random.Random,
    pause: float,
    until: float,
    seen: Seen,
) -> None:
    async def ask(what: str, method: str, path: str, body: Any = None) -> Any:
        begun = time.perf_counter()
        try:
            answer = await client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise AssertionError(f"{what}: {type(error).__name__}") from error
        seen.milliseconds[what].append((time.perf_counter() - begun) * 1000)
        if answer.status_code >= 400:
            raise AssertionError(f"{what}: {answer.status_code} {answer.json()['error']['code']}")
        return answer.json()

    call_id = (await ask("start", "POST", "/v1/calls", {"lang": dialogue.lang}))["id"]
    said: list[tuple[str, str]] = []
    for turn in dialogue.turns[:-1]:
        body = {"speaker": turn.speaker, "text": turn.text, "key": str(uuid4())}
        stored = await ask("turn", "POST", f"/v1/calls/{call_id}/turns", body)
        seen.acknowledged["turns"] += 1
        said.append((turn.speaker, stored["turn"]["text"]))
        if time.monotonic() > until:
            return
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
    triage = await triaged(client, headers, call_id, seen)
    seen.acknowledged["answers"] += 1
    state = await ask("show", "GET", f"/v1/calls/{call_id}")
    own = [(turn["speaker"], turn["text"]) for turn in state["turns"]] == said and triage["call"] == call_id
    quotes = [flag for flag in triage["red_flags"] if flag["span"] and flag["quote"] not in said[flag["turn"]][1]]
    seen.crossed += not own or bool(quotes) or state["triage"]["id"] != triage["id"]
    judged = {"answer_id": triage["id"], "action": "accepted", "key": str(uuid4())}
    await ask("feedback", "POST", "/v1/feedback", judged)
    seen.acknowledged["feedback"] += 1
    await ask("slots", "GET", f"/v1/roster/slots?specialty={triage['specialty']['id']}")
    await ask("close", "POST", f"/v1/calls/{call_id}/close", {"status": "done"})


async def triaged(client: httpx.AsyncClient, headers: dict[str, str], call_id: str, seen: Seen) -> dict[str, Any]:
    """A triage as events, as the console asks for it."""
    begun, name, first = time.perf_counter(), "", -1
    wanted = headers | {"Accept": "text/event-stream"}
    async with client.stream("POST", f"/v1/calls/{call_id}/triage", json={}, headers=wanted) as answer:
        if answer.status_code != 200:
            raise AssertionError(f"triage: {answer.status_code}")
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: ") and name in ("queue", "triage", "error"):
                data = json.loads(line[6:])
                if name == "error":
                    raise AssertionError(f"triage: {data['error']['code']}")
                if name == "queue" and first < 0:
                    first = data["position"]
                    seen.positions.append(first)
                if name == "triage":
                    seen.triage_s.append(time.perf_counter() - begun)
                    return dict(data)
    raise AssertionError("triage: the stream ended without one")


def messages_of(dialogue: Dialogue) -> list[dict[str, str]]:
    roles = {"patient": "user", "operator": "assistant"}
    said = [{"role": roles[turn.speaker], "content": turn.text} for turn in dialogue.turns[:-1]]
    return [{"role": "system", "content": SYSTEM}, *said]


async def stream(client: httpx.AsyncClient, key: str, messages: list[dict[str, str]]) -> tuple[float, int]:
    """Seconds to the first word, and tokens of the answer."""
    body = {
        "model": "default",
        "messages": messages,
        "max_tokens": 200,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun, first, tokens = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            part = json.loads(line[6:])
            if not first and part["choices"] and part["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - begun
            tokens = (part.get("usage") or {}).get("completion_tokens", tokens)
    return first, tokens


def bare(arguments: argparse.Namespace) -> Any:
    import llama_cpp

    threads = arguments.threads
    return llama_cpp.Llama(str(arguments.model), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)


def bare_stream(llama: Any, messages: list[dict[str, str]]) -> tuple[float, int]:
    """The same of bare llama-cpp-python."""
    begun, first, tokens = time.perf_counter(), 0.0, 0
    for part in llama.create_chat_completion(messages, temperature=0.0, repeat_penalty=1.0, max_tokens=200, stream=True):
        if part["choices"][0]["delta"].get("content"):
            first = first or time.perf_counter() - begun
            tokens += 1
    return first, tokens + 1  # and the one that ends the turn


def single_user(url: str, key: str, calls: list[Dialogue], arguments: argparse.Namespace) -> dict[str, float]:
    """The first word's time, the service and the bare library in turns, each call once."""
    llama = bare(arguments)
    ours: list[float] = []
    theirs: list[float] = []
    requests: list[float] = []
    calm = [call for call in calls if screen([(turn.speaker, turn.text) for turn in call.turns[:-1]], call.lang).least is None]
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    for dialogue in calm[: arguments.rounds]:
        ours.append(first_word_s(connection, key, messages_of(dialogue)))
        theirs.append(bare_stream(llama, messages_of(dialogue))[0])
        begun = time.perf_counter()
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
        connection.getresponse().read()
        requests.append(time.perf_counter() - begun)
    connection.close()
    llama.close()
    first, second, request = (statistics.median(found) for found in (ours, theirs, requests))
    shown = {"first_word_ms": first, "bare_ms": second, "request_without_model_ms": request}
    numbers = {**{name: round(seconds * 1000, 2) for name, seconds in shown.items()}, "ratio": round(first / second, 3)}
    return {**numbers, "real_time": os.sched_getscheduler(0) != os.SCHED_OTHER}


def first_word_s(connection: http.client.HTTPConnection, key: str, messages: list[dict[str, str]]) -> float:
    """Seconds from the request to the first word, with as light a client as there is: it shares the service's cores."""
    body = json.dumps({"model": "default", "messages": messages, "max_tokens": 200, "stream": True})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    begun, first = time.perf_counter(), 0.0
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    for line in iter(answer.readline, b""):
        if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            first = time.perf_counter() - begun
    return first


def parallel_gain(arguments: argparse.Namespace) -> dict[str, float]:
    """What decoding eight answers in one pass gives on this machine with this model: nobody around it can give more."""
    model = open_parallel(arguments.model, slots=8, threads=arguments.threads)
    context, prompt = model.context, model.prompt_ids([{"role": "user", "content": "J'ai mal au ventre depuis hier. " * 20}])
    for sequence in range(8):
        context.decode([Cells(prompt, 0, sequence, wanted=0)])

    def pass_s(sequences: int) -> float:
        found: list[float] = []
        for _ in range(200):
            begun = time.perf_counter()
            context.decode([Cells(prompt[-1:], len(prompt), sequence, wanted=1) for sequence in range(sequences)])
            found.append(time.perf_counter() - begun)
            for sequence in range(sequences):
                context.cut(sequence, len(prompt))
        return statistics.median(found)

    one, eight = pass_s(1), pass_s(8)
    model.close()
    return {"one_token_ms": round(one * 1000, 3), "eight_tokens_ms": round(eight * 1000, 3), "gain": round(8 * one / eight, 2)}


async def eight_users(url: str, key: str, calls: list[Dialogue], arguments: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Tokens a second of eight streams at once, against one by one."""
    chosen = [messages_of(dialogue) for dialogue in calls[-40:]]
    waiting = list(chosen)

    async def user(client: httpx.AsyncClient) -> int:
        written = 0
        while waiting:
            written += (await stream(client, key, waiting.pop()))[1]
        return written

    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        begun, busy, own = time.perf_counter(), cpu_s(pid), time.process_time()
        written = sum(await asyncio.gather(*(user(client) for _ in range(8))))
        ours = written / (time.perf_counter() - begun)
        ours_cpu, client_cpu = (cpu_s(pid) - busy) / written, (time.process_time() - own) / written
    llama = bare(arguments)
    begun, own = time.perf_counter(), time.process_time()
    written = sum(bare_stream(llama, messages)[1] for messages in chosen)
    theirs, theirs_cpu = written / (time.perf_counter() - begun), (time.process_time() - own) / written
    llama.close()
    core_ms = {"service": ours_cpu, "its_clients": client_cpu, "bare": theirs_cpu}  # of a token
    return {
        "alone": parallel_gain(arguments),
        "tokens_per_s": round(ours, 1),
        "bare_tokens_per_s": round(theirs, 1),
        "ratio": round(ours / theirs, 2),
        "core_ms_per_token": {name: round(seconds * 1000, 3) for name, seconds in core_ms.items()},
    }


def kept(desk: Path) -> dict[str, Any]:
    """What stands in the database after the service has stopped."""
    store = open_store(None, desk)
    with store.reading() as connection:
        counted = {table.name: select(func.count()).select_from(table) for table in (turns, answers, feedback)}
        counts = {name: connection.execute(asked).scalar_one() for name, asked in counted.items()}
    faults = verify(store).faults
    store.close()
    return {**counts, "journal_faults": len(faults)}


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def spread(values: list[float]) -> dict[str, float]:
    return {"count": len(values), **{f"p{share * 100:.0f}_ms": round(quantile(values, share), 1) for share in (0.5, 0.95, 0.99)}}


def shown(seen: Seen) -> dict[str, Any]:
    """The operators' part in numbers."""
    everything = [value for values in seen.milliseconds.values() for value in values]
    by = {name: spread(values) for name, values in sorted({**seen.milliseconds, "all": everything}.items())}
    return {
        "requests": by,
        "triage_s": {f"p{share * 100:.0f}": round(quantile(seen.triage_s, share), 2) for share in (0.5, 0.95, 0.99)},
        "triages": len(seen.triage_s),
        "told_their_place": sum(position > 0 for position in seen.positions),
        "longest_line": max(seen.positions, default=0),
        "errors": dict(seen.errors),
        "crossed": seen.crossed,
        "acknowledged": dict(seen.acknowledged),
        "memory_mb": seen.memory_mb[:: max(1, len(seen.memory_mb) // 60)],
    }


def verdicts(result: dict[str, Any], seen: Seen, stored: dict[str, Any]) -> dict[str, Any]:
    """Each bar with what was measured."""
    steady = [size for moment, size in seen.memory_mb if moment > result["minutes"] * 60 * 0.2]
    growth = round(steady[-1] - steady[0], 1) if steady else 0.0
    lost = {name: max(0, count - stored[name]) for name, count in seen.acknowledged.items()}
    p95 = result["work"]["requests"]["all"]["p95_ms"]
    return {
        "ready": [result["ready_s"] <= BARS["ready_s"], result["ready_s"]],
        "no error": [not seen.errors, sum(seen.errors.values())],
        "nothing lost": [not any(lost.values()), lost],
        "nothing crossed": [seen.crossed == 0, seen.crossed],
        "journal whole": [stored["journal_faults"] == 0, stored["journal_faults"]],
        "p95 but generation": [p95 <= BARS["p95_ms"], p95],
        "memory flat after a fifth of the time": [growth <= BARS["memory_growth_mb"], growth],
        "first word": [result["one_user"]["ratio"] <= BARS["first_word_ratio"], result["one_user"]["ratio"]],
        "eight users": [result["eight_users"]["ratio"] >= BARS["throughput_ratio"], result["eight_users"]["ratio"]],
    }


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        **{name: metadata.version(name) for name in ("fastapi", "uvicorn", "sqlalchemy", "llama-cpp-python")},
    }


if __name__ == "__main__":
    main()
