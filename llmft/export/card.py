"""The files beside a GGUF: model card, manifest, and settings for Ollama and GPT4All desktop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft import run
from llmft.export.adapter import Adapter
from llmft.export.checkpoint import Checkpoint
from llmft.export.quantize import Quant
from llmft.export.template import ollama_template
from llmft.export.tokenizer import Vocabulary

CONTEXT_TOKENS = 2048  # GPT4All desktop's default whatever the model; we write what the model was made for, up to this
ANSWER_TOKENS = 512


def write_companions(
    base: Checkpoint,
    adapter: Adapter | None,
    vocabulary: Vocabulary,
    output_dir: Path,
    name: str,
    paths: Mapping[Quant, Path],
    system_message: str,
) -> None:
    """Write manifest.json, MODEL_CARD.md, Modelfile and gpt4all.ini into ``output_dir``."""
    files = _known_files(output_dir)
    made_from = _made_from(base, adapter)
    for quant, path in paths.items():
        facts = {"quant": quant.name, "size_bytes": path.stat().st_size, "sha256": run.sha256(path)}
        files[path.name] = {**facts, "made_from": made_from}
    files = dict(sorted(files.items()))
    run.write_json(output_dir / "manifest.json", run.manifest(stage="export", name=name, files=files))
    run.write_text(output_dir / "MODEL_CARD.md", _model_card(name, files, base, adapter))
    first = next(iter(paths.values())).name
    run.write_text(output_dir / "Modelfile", _modelfile(first, vocabulary, system_message))
    context = min(CONTEXT_TOKENS, _context_tokens(base))
    run.write_text(output_dir / "gpt4all.ini", "\n".join(_ini(file, name, context, system_message) for file in files))


def _known_files(output_dir: Path) -> dict[str, Any]:
    """What an earlier export wrote here and is still here."""
    try:
        files = json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))["files"]
        return {file: facts for file, facts in files.items() if (output_dir / file).is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _made_from(base: Checkpoint, adapter: Adapter | None) -> dict[str, Any]:
    """The sources: small files by hash; the base's weights by size, because hashing reads them a second time."""
    weights = sorted({stored.path for stored in base.tensors.values()})
    facts: dict[str, Any] = {
        "base": str(base.folder),
        "base_config_sha256": run.sha256(base.folder / "config.json"),
        "base_weights_bytes": {path.name: path.stat().st_size for path in weights},
        "adapter": None,
    }
    if adapter is not None:
        facts["adapter"] = str(adapter.folder)
        facts["adapter_sha256"] = run.sha256(adapter.folder / "adapter_model.safetensors")
    return facts


def _context_tokens(base: Checkpoint) -> int:
    return int(base.config.get("max_position_embeddings") or base.config["n_positions"])


def _model_card(name: str, files: Mapping[str, Any], base: Checkpoint, adapter: Adapter | None) -> str:
    rows = [
        f"| `{file}` | {facts['quant']} | {facts['size_bytes'] / 1e6:,.1f} | `{facts['sha256'][:16]}…` |"
        for file, facts in files.items()
    ]
    return f"""# {name}

A triage assistant for a medical call centre, made with llmft from {_sources(base, adapter)}.

**Not a medical device and not clinically validated.** It proposes an urgency and a specialty to a trained operator,
who decides. It must not be used to diagnose, to treat, or without a human in the loop.

| file | quant | MB | sha256 |
|---|---|---|---|
{chr(10).join(rows)}

- **Licence:** that of the base model; read it before you pass the files on.
- **Languages:** French and English, those of the calls it was trained on.
- **Check it:** `llmft verify FILE.gguf --base {base.folder} {_adapter_option(adapter)}`
- **llama.cpp:** `llama-cli -m FILE.gguf --jinja`, or `llmft chat FILE.gguf`
- **Ollama:** `ollama create {name} -f Modelfile`
- **GPT4All desktop:** `llmft install-gpt4all FILE.gguf`; the settings are those of `gpt4all.ini`.
"""


def _sources(base: Checkpoint, adapter: Adapter | None) -> str:
    words = f"the base `{base.folder.name}`"
    if adapter is None:
        return words + ", without an adapter"
    rank, alpha = adapter.config.get("r"), adapter.config.get("lora_alpha")
    return f"{words} and a LoRA adapter (rank {rank}, alpha {alpha}, {len(adapter.loras)} layers) merged into it"


def _adapter_option(adapter: Adapter | None) -> str:
    return "" if adapter is None else f"--adapter {adapter.folder}"


def _modelfile(file: str, vocabulary: Vocabulary, system_message: str) -> str:
    """Ollama's recipe. Ollama does not read Jinja, so the template is written a second time in its own language."""
    lines = [f"FROM ./{file}"]
    template = ollama_template(vocabulary)
    if template is None:
        lines.append("# Ollama's language cannot write this model's chat template; use llama.cpp's server instead.")
    else:
        lines.append(f'TEMPLATE """{template}"""')
    if system_message and '"""' not in system_message:
        lines.append(f'SYSTEM """{system_message}"""')
    lines.append(f"PARAMETER stop {json.dumps(vocabulary.eos_token, ensure_ascii=False)}")
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1.0", f"PARAMETER num_predict {ANSWER_TOKENS}"]
    return "\n".join(lines) + "\n"


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
    return "\n".join([f"[model-{_ini_key(file)}]", *lines]) + "\n"


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
