"""The whole circle on the demonstration model: a mistake, two operators' corrections, training, and the same call again.

    .venv/bin/python bench/circle.py [--name demo-llama] [--mistakes 8] [--repeats 24] [--seed 4711]

Takes the demo's run and GGUF (make demo), finds fresh calls that it gets wrong, lets two operators correct each of them at a
desk, exports their judgements, prepares them beside the demo's calls, trains anew with each corrected call so many times in a
pass, exports the new model, takes it into service and asks again; the other fresh calls show what it has cost. Uses
data/prepared/, runs/ and export/<name>-corrected, writes bench/results/circle.json, and exits with 1 unless
seven of eight corrected mistakes are gone and 19 of 20 other right answers are still as many (fewer may be chance).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmft.dialogue import Dialogue, read_triage
from llmft.engine import answer
from llmft.engine.parallel_llama import open_parallel
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.prompt import to_messages
from llmft.recipe import load_recipe
from llmft.serve.store.answers import NewAnswer, Versions, record_answer
from llmft.serve.store.calls import add_turn, start_call
from llmft.serve.store.checking import verify
from llmft.serve.store.database import Store, open_store
from llmft.serve.store.feedback import NewFeedback, give_feedback
from llmft.serve.store.loop import export_feedback
from llmft.serve.store.models import active_model, roll_back, use_model

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "demo-llama.yaml"
OPERATORS = ("operator-1", "operator-2")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="demo-llama", help="of a finished run of the demo's recipe, exported as Q4_0")
    parser.add_argument("--mistakes", type=int, default=8)
    parser.add_argument(
        "--calls", type=int, default=800, help="fresh calls to ask; with 200 the right ones vary by five of a hundred"
    )
    parser.add_argument("--repeats", type=int, default=24, help="how often a pass meets a corrected call")
    parser.add_argument("--seed", type=int, default=4711, help="of the fresh calls, which no training has seen")
    arguments = parser.parse_args()
    began = time.monotonic()
    old, new = (ROOT / "export" / name / f"{name}-Q4_0.gguf" for name in (arguments.name, f"{arguments.name}-corrected"))
    calls = [call for call in synthesize(arguments.calls, arguments.seed) if call.labels is not None]
    said = asked(old, calls)
    wrong = [number for number, text in enumerate(said) if is_valid(text) and not is_right(calls[number], text)]
    taught = wrong[: arguments.mistakes]
    others = [number for number in range(len(calls)) if number not in taught]
    with tempfile.TemporaryDirectory(prefix="llmft-circle-") as name:
        os.environ["LLMFT_VAULT"] = name
        store = open_store(None, Path(name) / "desk")
        use_model(store, old, "bench", despite_gate=True)
        for number in taught:
            judge(store, calls[number], said[number])
        made = export_feedback(store, Path(name) / "feedback", [ROOT / "data" / "prepared" / "demo"])
        learn(f"{arguments.name}-corrected", Path(name) / "feedback" / "calls.jsonl", arguments.repeats)
        use_model(store, new, "bench", despite_gate=True)
        after = asked(new, calls)
        versions = [active_model(store), roll_back(store, "bench")]
        faults = verify(store).faults
        store.close()
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "seed": arguments.seed,
        "repeats": arguments.repeats,
        "judgements": made.judgements,
        "corrected_mistakes": len(taught),
        "gone_after_training": sum(is_right(calls[number], after[number]) for number in taught),
        "other_calls": len(others),
        "right_before": sum(is_right(calls[number], said[number]) for number in others),
        "right_after": sum(is_right(calls[number], after[number]) for number in others),
        "right_before_and_after": sum(all(is_right(calls[n], texts[n]) for texts in (said, after)) for n in others),
        "valid_blocks": [sum(map(is_valid, texts)) for texts in (said, after)],
        "models": [version.sha256[:12] for version in versions if version is not None],
        "journal_faults": faults,
        "seconds": round(time.monotonic() - began),
    }
    (ROOT / "bench" / "results" / "circle.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    gone = report["gone_after_training"] >= 0.87 * report["corrected_mistakes"]
    return 0 if gone and report["right_after"] >= 0.95 * report["right_before"] and not faults else 1


def learn(name: str, corrected: Path, repeats: int) -> None:
    """The demo's calls and those that were corrected, as one set; a training on it, and the new model's file."""
    data = ROOT / "data" / "prepared" / name
    shutil.rmtree(data, ignore_errors=True)
    run("prepare", str(data.parent / "calls.jsonl"), str(corrected), "--output", str(data))
    settings = (f"name={name}", f"data.folder={data}")
    run("sft", str(RECIPE), *settings, f"train.corrected_repeats={repeats}", "train.validate_every=9999", "--force")
    run("export", str(RECIPE), *settings, "--quant", "Q4_0", "--force")


def asked(path: Path, calls: Sequence[Dialogue]) -> list[str]:
    """What the model answers to each call's last words."""
    system = load_recipe(RECIPE).data.system
    model = open_parallel(path, threads=1)  # of so small a model more threads wait for each other
    conversations = [to_messages(call, system)[:-1] for call in calls]
    found = [given.text for given in answer(model, conversations, 320)]
    model.close()
    return found


def is_valid(text: str) -> bool:
    return read_triage(text) is not None


def is_right(call: Dialogue, text: str) -> bool:
    triage, gold = read_triage(text), read_triage(call.turns[-1].text)
    return triage is not None and gold is not None and (triage.urgency, triage.specialty) == (gold.urgency, gold.specialty)


def judge(store: Store, call: Dialogue, said: str) -> None:
    """The call as the desk would have stored it, the model's answer, and what each operator says it should have been."""
    triage, gold = read_triage(said), read_triage(call.turns[-1].text)
    assert triage is not None and gold is not None
    begun = start_call(store, call.lang, OPERATORS[0])
    for turn in call.turns[:-1]:
        add_turn(store, begun.id, turn.speaker, turn.text, key=secrets.token_hex(8))
    given = NewAnswer(
        "triage", begun.id, len(call.turns) - 1, said, triage.model_dump(mode="json"), "model", versions=Versions(model="demo")
    )
    answered = record_answer(store, given, "prompt", OPERATORS[0])
    correction = {**gold.model_dump(mode="json"), "reply": call.turns[-1].text.partition("```json")[0].strip()}
    for operator in OPERATORS:
        value = {"answer_id": answered.id, "action": "edited", "correction": correction, "key": secrets.token_hex(8)}
        give_feedback(store, NewFeedback.model_validate_json(json.dumps(value)), operator)


def run(verb: str, *arguments: str) -> None:
    """A verb of llmft as a user gives it."""
    subprocess.run([sys.executable, "-m", "llmft.cli", verb, *arguments], check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
