"""kill -9 under load, again and again: what was acknowledged must be there, the chain must verify, no slot may be taken twice.

    .venv/bin/python bench/serve_kill.py --kills 50                     # writers on the store itself
    .venv/bin/python bench/serve_kill.py --kills 50 --model FILE.gguf   # the whole service, over HTTP
    .venv/bin/python bench/serve_kill.py --kills 50 --model FILE.gguf --postgresql   # the same, on a PostgreSQL of its own
    .venv/bin/python bench/serve_kill.py --kills 50 --database postgresql://desk@localhost/empty

The database must be an empty one; without one it is SQLite in a folder that is thrown away. Over HTTP a service is started,
eight clients send turns, triages, judgements, bookings and releases, the service is killed at a random moment and started
again on what is left. Each turn, judgement, booking, release and answer that a client was told of must be there, the last four
with their record in the journal. Writes bench/results/serve-kill[-http][-postgresql].json; exit 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from kill_desk import losses, told  # noqa: E402
from tiny_store import running_postgresql, tiny_answer, tiny_call, write_roster  # noqa: E402

from llmft.serve.roster.importing import import_roster  # noqa: E402
from llmft.serve.store.calls import read_call  # noqa: E402
from llmft.serve.store.database import Store, open_store  # noqa: E402
from llmft.serve.store.journal import read_records  # noqa: E402

CLIENTS, DOCTORS, SLOTS, READY_S = 8, 4, 100, 180
TRIAGED = 0.2  # share of the calls; a triage takes longer than all the rest
RECORDS = {"feedback": "feedback", "booked": "booking", "released": "booking", "answer": "answer"}  # kind ─▶ its record's field
Told = list[tuple[str, ...]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", type=Path, help="a GGUF: kill the whole service instead of writers on the store")
    parser.add_argument("--database", help="PostgreSQL's URL")
    parser.add_argument("--postgresql", action="store_true", help="start Debian's PostgreSQL for it")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with running_postgresql() if arguments.postgresql else nullcontext(arguments.database) as arguments.database:
        report = measured(arguments)
    kind = f"{'-http' if arguments.model else ''}{'-postgresql' if arguments.database else ''}"
    path = ROOT / "bench" / "results" / f"serve-kill{kind}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 1 if report["lost_or_wrong"] else 0


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llmft-kill-") as name:
        os.environ["LLMFT_VAULT"] = name
        store = open_store(arguments.database, Path(name) / "desk")
        import_roster(store, write_roster(Path(name) / "roster.csv", DOCTORS, SLOTS), "bench")
        slots = [f"s-{doctor}-{slot}" for doctor in range(DOCTORS) for slot in range(SLOTS)]
        answer = tiny_answer(store, tiny_call(store))
        began = time.monotonic()
        if arguments.model:
            acknowledged = over_http(arguments, store, slots, answer.id)
        else:
            acknowledged = told(store, slots, answer.id, arguments.kills, arguments.seed)
        wrong = losses(store, acknowledged) + lost_turns(store, acknowledged) + without_record(store, acknowledged)
        wrong += [f"a request was refused with {facts[0]}" for kind, *facts in acknowledged if kind == "refused"]
        report = {
            "what": "the service over HTTP" if arguments.model else "writers on the store",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
            "database": store.engine.dialect.name,
            "kills": arguments.kills,
            "acknowledged": dict(sorted(Counter(kind for kind, *_ in acknowledged).items())),
            "lost_or_wrong": wrong,
            "seconds": round(time.monotonic() - began, 1),
        }
        store.close()
    return report


def over_http(arguments: argparse.Namespace, store: Store, slots: list[str], answer_id: str) -> Told:
    """Start, load and kill the service; returns what its clients were told."""
    chance = random.Random(arguments.seed)
    acknowledged: Told = []
    for number in range(arguments.kills):
        port = free_port()
        command = [sys.executable, "-m", "llmft.cli", "serve", str(arguments.model), "--port", str(port)]
        command += ["--desk", str(store.folder), "--despite-gate", "--threads", "1", "--rate", "1000000"]
        command += ["--database", arguments.database] if arguments.database else []
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, service)
        stop = threading.Event()
        clients = [
            threading.Thread(target=use, args=(url, slots, answer_id, acknowledged, stop), daemon=True) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        enough, deadline = len(acknowledged) + chance.randint(10, 200), time.monotonic() + READY_S
        while len(acknowledged) < enough and time.monotonic() < deadline:
            time.sleep(0.01)
        service.send_signal(signal.SIGKILL)
        service.wait()
        stop.set()
        for client in clients:
            client.join(30)
        print(f"\r{number + 1} of {arguments.kills} kills, {len(acknowledged)} acknowledged", end="", file=sys.stderr)
    return acknowledged


def use(url: str, slots: list[str], answer_id: str, acknowledged: Told, stop: threading.Event) -> None:
    """One client: turns, a judgement, a booking, sometimes its release, until the service is gone."""
    with httpx.Client(base_url=url, timeout=30) as http:
        while not stop.is_set():
            try:
                one_round(http, slots, answer_id, acknowledged)
            except httpx.TransportError:  # killed: whether the last request was stored nobody was told
                return
            except httpx.HTTPStatusError as error:
                acknowledged.append(("refused", f"{error.response.status_code}"))
                return


def one_round(http: httpx.Client, slots: list[str], answer_id: str, acknowledged: Told) -> None:
    call_id = sent(http, "/v1/calls", {"lang": "fr"})["id"]
    turn = {"speaker": "patient", "text": "j'ai mal au ventre", "key": secrets.token_hex(8)}
    sent(http, f"/v1/calls/{call_id}/turns", turn)
    acknowledged.append(("turn", call_id))
    if random.random() < TRIAGED:
        acknowledged.append(("answer", sent(http, f"/v1/calls/{call_id}/triage", {})["id"]))
    judgement = {"answer_id": answer_id, "action": "rejected", "reason": "trop bas", "key": secrets.token_hex(8)}
    acknowledged.append(("feedback", sent(http, "/v1/feedback", judgement)["id"]))
    slot = random.choice(slots)
    booked = http.post("/v1/roster/bookings", json={"slot_id": slot, "call_id": call_id, "key": secrets.token_hex(8)})
    if booked.status_code == 409:  # somebody was faster
        return
    booked.raise_for_status()
    booking = booked.json()["id"]
    acknowledged.append(("booked", booking, slot))
    if random.random() < 0.7:
        sent(http, f"/v1/roster/bookings/{booking}/release", {})
        acknowledged.append(("released", booking))


def sent(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    if answer.status_code == 429:  # the service's own limit
        time.sleep(float(answer.headers.get("Retry-After", "1")))
        return sent(http, path, body)
    answer.raise_for_status()
    value: dict[str, Any] = answer.json()
    return value


def lost_turns(store: Store, acknowledged: Told) -> list[str]:
    calls = [facts[0] for kind, *facts in acknowledged if kind == "turn"]
    return [f"the turn of {call_id} is lost" for call_id in calls if len(read_call(store, call_id).turns) != 1]


def without_record(store: Store, acknowledged: Told) -> list[str]:
    """What was acknowledged and does not stand in the journal."""
    with store.reading() as connection:
        links = {(link.kind, link.facts.get(RECORDS.get(link.kind, ""))) for link in read_records(connection)}
    owed = [(kind, facts[0]) for kind, *facts in acknowledged if kind in RECORDS]
    return [f"{kind} {name} has no record" for kind, name in owed if (kind, name) not in links]


def wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and service.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"the service was not ready within {READY_S} s; start it by hand to see why")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
