"""A recipe's run to its files: calibrated on its own dialogues, in the quants that the recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Type

from llmft.errors import ExportError
from llmft.export.calibration.bases import NF4, ORIGINAL, losses_on_bases
from llmft.export.calibration.calls import Calls
from llmft.export.calibration.embedding import EMBEDDING
from llmft.export.delivery import card
from llmft.export.delivery.desktop import require_desktop
from llmft.export.delivery.facts import evaluated_files
from llmft.export.file.feedback import LOWEST
from llmft.export.file.imatrix import read_imatrix, require_fit, write_imatrix
from llmft.export.file.known import Given, Known
from llmft.export.file.quants import FLOATS, Quant, Rule, parse_quant, parse_rules, tensor_types
from llmft.export.sources import Sources, read_sources
from llmft.export.writer import Options, write_files
from llmft.gate_result import card_section, put_on_card
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
    settings, folder, evaluation_dir = recipe.export, recipe.export_dir, recipe.run.evaluation_dir
    profile = wishes.profile or settings.profile
    kinds = list(dict.fromkeys(parse_quant(quant) for quant in wishes.quants or _quants(settings, profile)))
    paths = {kind: folder / f"{recipe.name}-{kind.name}.gguf" for kind in kinds}
    existing = [path for path in paths.values() if path.exists()]
    if existing and not wishes.force:  # said before the calls are read, not after
        raise ExportError(f"{existing[0]} exists already; delete it, choose another name, or overwrite it with --force")
    sources = read_sources(base_dir, [adapter_dir], into_nf4=settings.merge_base == "nf4")
    if profile == "gpt4all":
        require_desktop(sources, has_parts=wishes.part_bytes is not None)
    losses = _losses(recipe, sources)
    if losses and losses[NF4] < losses[ORIGINAL]:
        sources = read_sources(base_dir, [adapter_dir], into_nf4=True)
    rules = parse_rules(f"{pattern}={kind}" for pattern, kind in settings.mix.items())
    known = _known(recipe, sources, kinds, wishes, rules)
    options = Options(rules=rules, known=known, part_bytes=wishes.part_bytes, force=wishes.force)
    written = write_files(sources, paths, recipe.name, options)
    if isinstance(known, Calls):
        write_imatrix(folder / IMATRIX, known.finish(), "de-identified training calls")
    data_card = Path(recipe.data.folder) / "DATA_CARD.md"
    if data_card.is_file():
        write_text(folder / data_card.name, data_card.read_text("utf-8"))
    card.write_companions(
        sources,
        folder,
        recipe.name,
        written,
        recipe.data.system or "",
        losses=losses,
        feedback=len(known.rounded) if isinstance(known, Calls) else 0,
    )
    put_on_card(folder / "MODEL_CARD.md", card_section(evaluated_files(folder, evaluation_dir), evaluation_dir))
    return [path for group in written.values() for path in group]


def _quants(settings: Export, profile: str | None) -> tuple[str, ...]:
    """The recipe's own list, or its profile's where it has none."""
    if profile is None or "quants" in settings.model_fields_set:
        return settings.quants
    return PROFILES[profile]


def _losses(recipe: Recipe, sources: Sources) -> dict[str, float]:
    """Of both bases on validation calls, where the recipe wants the better one."""
    if recipe.export.merge_base != "better":
        return {}
    count = max(1, recipe.export.calibration_dialogues)
    return losses_on_bases(sources, _encoded(recipe.data.system, sources, Path(recipe.data.folder) / "validation.jsonl", count))


def _known(recipe: Recipe, sources: Sources, kinds: Sequence[Quant], wishes: Wishes, rules: Sequence[Rule]) -> Known:
    """What the training calls say, or the user's own matrix; nothing where no quant can use it."""
    if wishes.imatrix is not None:
        return given_matrix(wishes.imatrix, sources)
    count = recipe.export.calibration_dialogues if any(map(uses_importance, kinds)) else 0
    training = _encoded(recipe.data.system, sources, Path(recipe.data.folder) / "train.jsonl", count)
    if not training:
        return Given()
    with_feedback = recipe.export.rounding == "feedback"
    return Calls(sources, training, rounded_with_feedback(sources, kinds, rules) if with_feedback else {})


def given_matrix(path: Path, sources: Sources) -> Given:
    """The importance matrix of a file, which must be of this model."""
    means = read_imatrix(path)
    require_fit(means, sources.model)
    return Given(means)


def rounded_with_feedback(sources: Sources, kinds: Sequence[Quant], rules: Sequence[Rule]) -> dict[str, Type]:
    """What each weight of the layers becomes in a Q4_0 file, and the embedding where it is that coarse; a tied head is finer."""
    if not any(kind.bulk == Type.Q4_0 for kind in kinds):
        return {}
    types = tensor_types(sources.model, parse_quant("Q4_0"), rules, True)
    weights = {name: kind for name, kind in types.items() if name.startswith("blk.") and kind not in FLOATS}
    return weights | {name: kind for name, kind in types.items() if name == EMBEDDING and kind in LOWEST}


def uses_importance(quant: Quant) -> bool:
    """Whether weights of columns change any byte of such a file."""
    return quant.bulk not in (*FLOATS, Type.Q8_0)


def known_without_recipe(
    sources: Sources, quants: Sequence[str], rules: Sequence[Rule], folder: Path | None, imatrix: Path | None
) -> Known:
    """From the training calls of a prepared set, with the importance of a user's own matrix where there is one."""
    given = None if imatrix is None else given_matrix(imatrix, sources)
    if folder is None:
        return given or Given()
    calls = _encoded(None, sources, folder / "train.jsonl", Export().calibration_dialogues)
    if not calls:
        raise ExportError(f"{folder / 'train.jsonl'} holds no call that can be read; make a set with: llmft prepare")
    rounded = rounded_with_feedback(sources, [parse_quant(quant) for quant in quants], rules)
    return Calls(sources, calls, rounded, given)


def _encoded(system: str | None, sources: Sources, path: Path, count: int) -> list[Any]:
    """Calls as token ids and labels, as training saw them."""
    if count == 0:
        return []
    from transformers import AutoTokenizer

    from llmft.prompt import encode

    tokenizer: Any = AutoTokenizer.from_pretrained(sources.tokenizer_dir)
    rows = (encode(dialogue, tokenizer, system) for dialogue in even_sample(path, count))
    return [row for row in rows if len(row.input_ids) <= LONGEST_TOKENS]


def even_sample(path: Path, count: int) -> list[Any]:
    """``count`` dialogues taken evenly from a prepared split, empty when it is not there."""
    from llmft.dialogue import Dialogue, scan_dialogues

    if not path.is_file():
        return []
    dialogues = [parsed for parsed in scan_dialogues(path) if isinstance(parsed, Dialogue)]
    step = max(1, len(dialogues) // count)
    return dialogues[::step][:count]
