"""A small prepared set with everything beside the splits that a later step may meet."""

from __future__ import annotations

import json
from pathlib import Path

from llmft.dialogue import Dialogue, as_line
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.lineage import origin_line, origin_of, remember_version
from llmft.prepare.reporting.counts import SPLITS, Counts, facts
from llmft.prepare.reporting.page import write_reports
from llmft.prepare.reporting.report import Report, make_report
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.run import sha256
from llmft.vault import open_vault

DEID = {"status": "done", "counts": {"NOM": 2, "TEL": 1}, "layers": {"roster": 2, "contacts": 1}}


def calls(count: int = 60) -> list[Dialogue]:
    """Synthetic calls of all splits, marked as de-identified."""
    return [dialogue.model_copy(update={"deid": DEID}) for dialogue in synthesize(count, seed=4)]


def counted(dialogues: list[Dialogue]) -> Counts:
    counts = Counts()
    for dialogue in dialogues:
        counts.read("calls.csv")
        counts.keep(facts(json.loads(as_line(dialogue))), str(dialogue.split))
    return counts


def prepared_set(folder: Path, vault: Path, dialogues: list[Dialogue]) -> Report:
    """Write ``dialogues`` as prepare does; dialogue n is of subject "P<n // 2>", so each subject has two calls."""
    folder.mkdir(parents=True)
    for split in SPLITS:
        (folder / f"{split}.jsonl").write_text("".join(as_line(d) for d in dialogues if d.split == split), "utf-8")
    salt = open_vault(vault)
    origins = [
        origin_of(RawCall("calls.csv", n + 1, (RawTurn("patient", "x"),), subject=f"P{n // 2}"), d.id, salt)
        for n, d in enumerate(dialogues)
    ]
    (folder / "lineage.jsonl").write_text("".join(map(origin_line, origins)), "utf-8")
    files = {f"{split}.jsonl": sha256(folder / f"{split}.jsonl") for split in SPLITS}
    families = len({dialogue.family_id for dialogue in dialogues})
    sources = [{"path": "calls.csv", "format": "csv"}]
    report = make_report(counted(dialogues), seed=1, split_by="patient", families=families, files=files, sources=sources)
    write_reports(folder, folder.name, report)
    remember_version(folder, files)
    return report
