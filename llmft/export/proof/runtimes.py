"""What the C++ runtimes make of a GGUF. Each check runs in a process of its own, because C++ may abort.

    python -m llmft.export.proof.runtimes CHECK WORK_DIR FILE.gguf RESULT.json

reads WORK_DIR/job.json (and what the reference left there) and writes RESULT.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.export.delivery.desktop import template_faults
from llmft.export.proof import gpt4all_checks, llama_checks, reference
from llmft.export.template import render

Job = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run one check; its result goes to a file, so that what C++ prints does no harm."""
    check, work_dir, gguf_path, result_path = arguments[0], *map(Path, arguments[1:4])
    job = json.loads((work_dir / "job.json").read_text(encoding="utf-8"))
    result = CHECKS[check](job, work_dir, gguf_path)
    partial = result_path.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(result_path)
    return 0


def template(job: Job, work_dir: Path, gguf_path: Path) -> Any:
    """Each dialogue as GPT4All desktop renders it, and what in the template its engine does not know."""
    source, names = job["template"], {"bos_token": job["bos_token"], "eos_token": job["eos_token"]}
    texts = [render(source, dialogue, desktop=True, **names) for dialogue in job["dialogues"]]
    return {"texts": texts, "faults": template_faults(source, job["bos_token"], job["eos_token"])}


CHECKS: dict[str, Callable[[Job, Path, Path], Any]] = {
    "reference": reference.compute,
    "template": template,
    "llama_tokens": llama_checks.tokens,
    "llama_logits": llama_checks.logits,
    "llama_stops": llama_checks.stops,
    "gpt4all_tokens": gpt4all_checks.tokens,
    "gpt4all_greedy": gpt4all_checks.greedy,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
