"""A recipe's run to its files: calibrated on its own dialogues, in the quants that the recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type

from llmft.errors import ExportError
from llmft.export.base.checkpoint import Floats
from llmft.export.calibrate import Calibration, calibrate, even_sample
from llmft.export.delivery import card
from llmft.export.delivery.desktop import require_desktop
from llmft.export.embedding import EMBEDDING, embedding_is_rounded, embedding_moments
from llmft.export.file.feedback import within_memory
from llmft.export.file.imatrix import read_imatrix, require_fit, write_imatrix
from llmft.export.file.quants import FLOATS, Quant, Rule, parse_quant, parse_rules, tensor_types
from llmft.export.sources import Sources, read_sources
from llmft.export.writer import Options, write_files
from llmft.recipe import Recipe
from llmft.run import write_text
from llmft.settings import Export

IMATRIX = "imatrix.gguf"
PROFILES: dict[str, tuple[str, ...]] = {"gpt4all": ("Q4_0",), "llama.cpp": ("Q4_K_M", "Q8_0")}
LONGEST_TOKENS = 2048  # of a call that is read for calibration


@dataclass(frozen=True)
class Wishes:
    """What a command line asks for beyond its recipe."""

    quants: tuple[str, ...] | None = None
    profile: str | None = None  # instead of the recipe's
    imatrix: Path | None = None  # instead of one gathered from the training calls
    force: bool = False
    part_bytes: int | None = None


def export_run(recipe: Recipe, base_dir: Path, adapter_dir: Path, wishes: Wishes) -> list[Path]:
    """Write ``export/<name>/<name>-<quant>.gguf`` for each quant, and what goes with them.

    Quants that can use it are weighted by an importance matrix of the training calls, kept as ``imatrix.gguf``.
    """
    settings, folder = recipe.export, recipe.export_dir
    profile = wishes.profile or settings.profile
    kinds = list(dict.fromkeys(parse_quant(quant) for quant in wishes.quants or _quants(settings, profile)))
    paths = {kind: folder / f"{recipe.name}-{kind.name}.gguf" for kind in kinds}
    existing = [path for path in paths.values() if path.exists()]
    if existing and not wishes.force:  # said before the calls are read, not after
        raise ExportError(f"{existing[0]} exists already; delete it, choose another name, or overwrite it with --force")
    sources = read_sources(base_dir, [adapter_dir], into_nf4=settings.merge_base == "nf4")
    if profile == "gpt4all":
        require_desktop(sources, has_parts=wishes.part_bytes is not None)
    rules = parse_rules(f"{pattern}={kind}" for pattern, kind in settings.mix.items())
    calibration = _calibrated(recipe, sources, kinds, wishes, rules)
    if settings.merge_base == "better" and calibration is not None and calibration.is_nf4_better:
        sources = read_sources(base_dir, [adapter_dir], into_nf4=True)
    options = Options(
        rules=rules,
        importance=_importance(folder, sources, calibration, wishes),
        moments=_moments(sources, calibration, kinds, rules),
        part_bytes=wishes.part_bytes,
        force=wishes.force,
    )
    written = write_files(sources, paths, recipe.name, options)
    data_card = Path(recipe.data.folder) / "DATA_CARD.md"
    if data_card.is_file():
        write_text(folder / data_card.name, data_card.read_text("utf-8"))
    card.write_companions(
        sources,
        folder,
        recipe.name,
        written,
        recipe.data.system or "",
        losses=_losses(calibration),
        feedback=len(options.moments),
    )
    return [path for group in written.values() for path in group]


def _quants(settings: Export, profile: str | None) -> tuple[str, ...]:
    """The recipe's own list, or its profile's where it has none."""
    if profile is None or "quants" in settings.model_fields_set:
        return settings.quants
    return PROFILES[profile]


def _calibrated(
    recipe: Recipe, sources: Sources, kinds: Sequence[Quant], wishes: Wishes, rules: Sequence[Rule]
) -> Calibration | None:
    """Statistics of the training calls where a quant can use them, losses where two bases are in question."""
    wants_matrix = wishes.imatrix is None and recipe.export.calibration_dialogues > 0 and any(map(uses_importance, kinds))
    compares = recipe.export.merge_base == "better"
    if not wants_matrix and not compares:
        return None
    count = max(1, recipe.export.calibration_dialogues)
    prepared = Path(recipe.data.folder)
    training = _encoded(recipe.data.system, sources, prepared / "train.jsonl", count if wants_matrix else 0)
    validation = _encoded(recipe.data.system, sources, prepared / "validation.jsonl", count if compares else 0)
    if not training and not validation:
        return None
    with_moments = rounded_with_feedback(sources, kinds, rules) if recipe.export.rounding == "feedback" and training else set()
    return calibrate(sources, training, validation, with_moments=with_moments, compare_nf4=compares)


def _moments(
    sources: Sources, calibration: Calibration | None, kinds: Sequence[Quant], rules: Sequence[Rule]
) -> dict[str, Floats]:
    """What is known of the inputs of all tensors that are rounded with feedback."""
    if calibration is None or not calibration.moments:
        return {}
    of_embedding = {EMBEDDING: embedding_moments(sources)} if embedding_is_rounded(sources, kinds, rules) else {}
    return {**calibration.moments, **of_embedding}


def rounded_with_feedback(sources: Sources, kinds: Sequence[Quant], rules: Sequence[Rule]) -> set[str]:
    """Weights of the layers that become Q4_0 in one of the files, as many as fit into memory with what must be known of them."""
    types = [tensor_types(sources.model, kind, rules, True) for kind in kinds if kind.bulk not in FLOATS]
    in_layers = [tensor for tensor in sources.model.tensors if tensor.name.startswith("blk.")]
    return within_memory({t.name: t.columns for t in in_layers if any(found[t.name] == Type.Q4_0 for found in types)})


def uses_importance(quant: Quant) -> bool:
    """Whether weights of columns change any byte of such a file."""
    return quant.bulk not in (*FLOATS, Type.Q8_0)


def known_from_calls(
    sources: Sources, quants: Sequence[str], rules: Sequence[Rule], folder: Path
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Importance and moments for a model without a recipe, from the training calls of a prepared set."""
    kinds = [parse_quant(quant) for quant in quants]
    calls = _encoded(None, sources, folder / "train.jsonl", Export().calibration_dialogues)
    if not calls:
        raise ExportError(f"{folder / 'train.jsonl'} holds no call that can be read; make a set with: llmft prepare")
    calibration = calibrate(sources, calls, with_moments=rounded_with_feedback(sources, kinds, rules))
    means = {name: statistic.squares / np.float32(statistic.count) for name, statistic in calibration.statistics.items()}
    return means, _moments(sources, calibration, kinds, rules)


def _encoded(system: str | None, sources: Sources, path: Path, count: int) -> list[Any]:
    """Calls as token ids and labels, as training saw them."""
    if count == 0:
        return []
    from transformers import AutoTokenizer

    from llmft.prompt import encode

    tokenizer: Any = AutoTokenizer.from_pretrained(sources.tokenizer_dir)
    rows = (encode(dialogue, tokenizer, system) for dialogue in even_sample(path, count))
    return [row for row in rows if len(row.input_ids) <= LONGEST_TOKENS]


def _importance(folder: Path, sources: Sources, calibration: Calibration | None, wishes: Wishes) -> dict[str, Any]:
    """Of the user's matrix, or of one that is written for llama-quantize to use as well."""
    if wishes.imatrix is not None:
        means = read_imatrix(wishes.imatrix)
        require_fit(means, sources.model)
        return means
    if calibration is None or not calibration.statistics:
        return {}
    write_imatrix(folder / IMATRIX, calibration.statistics, "de-identified training calls")
    return read_imatrix(folder / IMATRIX)


def _losses(calibration: Calibration | None) -> dict[str, float]:
    if calibration is None or calibration.loss_original is None or calibration.loss_nf4 is None:
        return {}
    return {"original weights": calibration.loss_original, "dequantised NF4": calibration.loss_nf4}
