"""The files beside a GGUF: model card, manifest, and settings for Ollama and GPT4All desktop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft import run
from llmft.export.adapters.adapter import Adapter
from llmft.export.delivery.facts import licence_of, measured_section, read_verified
from llmft.export.delivery.ollama import modelfile
from llmft.export.file.quants import Quant
from llmft.export.sources import Sources

CONTEXT_TOKENS = 2048  # GPT4All desktop's default whatever the model; we write what the model was made for, up to this
ANSWER_TOKENS = 512
NO_LOSSES: Mapping[str, float] = {}


def write_companions(
    sources: Sources,
    output_dir: Path,
    name: str,
    paths: Mapping[Quant, Sequence[Path]],
    system_message: str,
    prefix: str = "",
    losses: Mapping[str, float] = NO_LOSSES,
    feedback: int = 0,
) -> None:
    """Write manifest.json, MODEL_CARD.md, Modelfile and gpt4all.ini into ``output_dir``, ``prefix`` before each name.

    ``feedback``: how many tensors of a Q4_0 file were rounded with error feedback.
    """
    manifest_path = output_dir / f"{prefix}manifest.json"
    files = _known_files(manifest_path)
    made_from = {**_made_from(sources), **({"validation_loss": dict(losses)} if losses else {})}
    for quant, path in ((quant, path) for quant, group in paths.items() for path in group):
        facts = {"quant": quant.name, "size_bytes": path.stat().st_size, "sha256": run.sha256(path)}
        files[path.name] = {**facts, "made_from": made_from}
        if feedback and quant.name == "Q4_0":
            files[path.name]["rounded_with_error_feedback"] = feedback
    files = dict(sorted(files.items()))
    run.write_json(manifest_path, run.manifest(stage="export", name=name, files=files))
    run.write_text(output_dir / f"{prefix}MODEL_CARD.md", _model_card(name, files, sources, losses, output_dir))
    first = next(iter(paths.values()))[0].name
    run.write_text(output_dir / f"{prefix}Modelfile", modelfile(first, sources.vocabulary, system_message, ANSWER_TOKENS))
    context = min(CONTEXT_TOKENS, int(sources.model.metadata["context_length"]))
    run.write_text(output_dir / f"{prefix}gpt4all.ini", "\n".join(_ini(file, name, context, system_message) for file in files))


def _known_files(manifest_path: Path) -> dict[str, Any]:
    """What an earlier export wrote here and is still here."""
    try:
        files = json.loads(manifest_path.read_text(encoding="utf-8"))["files"]
        return {file: facts for file, facts in files.items() if (manifest_path.parent / file).is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _made_from(sources: Sources) -> dict[str, Any]:
    """The sources: small files by hash; the base's weights by size, because hashing reads them a second time."""
    base = sources.base
    weights = sorted({stored.path for stored in base.tensors.values()})
    facts: dict[str, Any] = {
        "base": str(base.folder),
        "base_config_sha256": run.sha256(base.folder / "config.json"),
        "base_weights_bytes": {path.name: path.stat().st_size for path in weights},
        "adapters": [
            {
                "folder": str(adapter.folder),
                "weight": adapter.share,
                "sha256": run.sha256(adapter.folder / "adapter_model.safetensors"),
            }
            for adapter in sources.adapters
        ],
        "merged_into": "dequantised NF4" if sources.merge_base.is_nf4 else "original weights",
    }
    return facts


def _model_card(name: str, files: Mapping[str, Any], sources: Sources, losses: Mapping[str, float], output_dir: Path) -> str:
    rows = [
        f"| `{file}` | {facts['quant']} | {facts['size_bytes'] / 1e6:,.1f} | `{facts['sha256'][:16]}…` |"
        for file, facts in files.items()
    ]
    return f"""# {name}

A triage assistant for a medical call centre, made with llmft from {_origin(sources)}.

**Not a medical device and not clinically validated.** It proposes an urgency and a specialty to a trained operator,
who decides. It must not be used to diagnose, to treat, or without a human in the loop.

| file | quant | MB | sha256 |
|---|---|---|---|
{chr(10).join(rows)}

## What was measured
Against base and unmerged adapter in float32.

{measured_section(read_verified(output_dir / "verify.json"))}

## What it is and is not for
{_loss_words(sources, losses)}- **Intended use:** to prepare a first orientation for a trained operator of a medical call centre.
- **Not intended:** advice to patients, diagnosis, treatment, any decision without a human.
- **Licence:** that of the base model ({licence_of(sources.base.folder)}); read it before you pass the files on.
- **Data:** {"see DATA_CARD.md beside this page" if (output_dir / "DATA_CARD.md").is_file() else "see the data card of the set"}.
- **Languages:** French and English, those of the calls it was trained on.
- **Check it:** `llmft verify FILE.gguf --base {sources.base.folder} {_adapter_options(sources)}`
- **llama.cpp:** `llama-cli -m FILE.gguf --jinja`, or `llmft chat FILE.gguf`
- **Ollama:** `ollama create {name} -f Modelfile`
- **GPT4All desktop:** `llmft install-gpt4all FILE.gguf`; the settings are those of `gpt4all.ini`.
"""


def _loss_words(sources: Sources, losses: Mapping[str, float]) -> str:
    """Which base the adapter lost less on, a line or nothing."""
    if not losses:
        return ""
    measured = ", ".join(f"{loss:.4f} on the {base}" for base, loss in losses.items())
    chosen = "dequantised NF4" if sources.merge_base.is_nf4 else "original weights"
    return f"- **Merged into:** the {chosen}; validation loss in nats a token: {measured}\n"


def _origin(sources: Sources) -> str:
    words = f"the base `{sources.base.folder.name}`"
    if not sources.adapters:
        return words + ", without an adapter"
    return f"{words} and {' and '.join(map(_adapter_words, sources.adapters))} merged into it"


def _adapter_words(adapter: Adapter) -> str:
    rank, alpha, share = adapter.config.get("r"), adapter.config.get("lora_alpha"), adapter.share
    weight = "" if share == 1 else f", weight {share:g}"
    return f"a LoRA adapter (rank {rank}, alpha {alpha}, {adapter.modules} layers{weight})"


def _adapter_options(sources: Sources) -> str:
    return " ".join(f"--adapter {adapter.folder}" for adapter in sources.adapters)


def _ini(file: str, name: str, context: int, system_message: str) -> str:
    """One group of GPT4All desktop's settings file; keys from its mysettings.cpp.

    The desktop's own repeat penalty of 1.18 punishes the field names that every triage block repeats.
    """
    settings: dict[str, str | int] = {
        "name": f"{name} {file.removesuffix('.gguf').rpartition('-')[2]}",
        "filename": file,
        "contextLength": context,
        "maxLength": ANSWER_TOKENS,
        "temperature": 0,
        "repeatPenalty": 1,
    }
    if system_message:
        settings["systemMessage"] = system_message
    lines = [f"{key}={_ini_value(value)}" for key, value in settings.items()]
    return "\n".join([f"[{ini_group(file)}]", *lines]) + "\n"


def ini_group(file: str) -> str:
    """The group of GPT4All's settings that a model file has."""
    return f"model-{_ini_key(file)}"


def _ini_key(text: str) -> str:
    """Qt writes every byte of a group's name but letters, digits, '_', '-' and '.' as %XX."""
    plain = "_-."
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in plain) else _percent(letter) for letter in text)


def _percent(letter: str) -> str:
    return f"%{ord(letter):02X}" if ord(letter) < 256 else f"%U{ord(letter):04X}"


def _ini_value(value: str | int) -> str:
    """Qt quotes a string that has more than plain words in it."""
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
