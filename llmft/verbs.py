"""Verbs that join stages: what to export, what to verify and where it lies, cross-validation with its metrics."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmft.dialogue import Dialogue, scan_dialogues
from llmft.engine import Answer, Engine
from llmft.errors import CheckpointError, ExportError, RecipeError, VerifyError
from llmft.gate_result import require_gate
from llmft.privacy import keep_private
from llmft.prompt import Message, to_messages
from llmft.recipe import Recipe, load_recipe
from llmft.run import require_same_base, write_json
from llmft.settings import TRIAGE_METRICS

if TYPE_CHECKING:
    from llmft.export.verify import Texts
    from llmft.train.judging import Judge

VERIFY_CHATS = 8  # test dialogues that the runtimes are compared on
PERPLEXITY_CALLS = 16  # validation dialogues whose operator's words each file must foresee as the model does


def require_desktop_tokenizer(recipe: Recipe) -> None:
    """Refuse to train for GPT4All what its desktop would read otherwise; of a base on this machine."""
    from llmft.export.delivery.desktop import require_known_splitting
    from llmft.export.vocabulary.tokenizer import read_splitting

    if recipe.export.profile == "gpt4all" and recipe.base_is_folder:
        require_known_splitting(read_splitting(base_folder(recipe)).pre)


def export_command(arguments: argparse.Namespace) -> None:
    """``llmft export``: a recipe's run, or any base with any PEFT adapter."""
    from llmft.export.stage import Wishes, export_run

    keep_private()
    quants = tuple(arguments.quant.split(",")) if arguments.quant else None
    if arguments.base is not None:
        _export_bare(arguments, quants)
        return
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    wishes = Wishes(quants, arguments.profile, arguments.imatrix, arguments.force, _part_bytes(arguments))
    adapter = trained_adapter(recipe)
    weights = adapter / "adapter_model.safetensors"
    require_gate(weights, despite=arguments.despite_gate, folders=[recipe.run.evaluation_dir])
    for path in export_run(recipe, base_folder(recipe), adapter, wishes):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def _export_bare(arguments: argparse.Namespace, quants: tuple[str, ...] | None) -> None:
    """Any base with any adapters."""
    from dataclasses import replace

    from llmft.export.adapters.low_rank_file import write_adapter_file
    from llmft.export.file.quants import parse_rules
    from llmft.export.sources import read_sources
    from llmft.export.stage import PROFILES, known_without_recipe
    from llmft.export.writer import Options, export_bare

    if arguments.adapter_only and arguments.output is not None:
        sources = read_sources(cached_folder(arguments.base), arguments.adapter, arguments.weight, into_nf4=arguments.into_nf4)
        print(write_adapter_file(sources, arguments.output, force=arguments.force))
        return
    quants = quants or PROFILES.get(arguments.profile or "")
    if arguments.output is None or quants is None:
        raise ExportError("--base needs --output FILE.gguf and --quant, such as --quant Q4_0 (or --profile, or --adapter-only)")
    rules = parse_rules(arguments.mix)
    options = Options(rules, part_bytes=_part_bytes(arguments), force=arguments.force)
    if arguments.data is not None or arguments.imatrix is not None:
        sources = read_sources(cached_folder(arguments.base), arguments.adapter, arguments.weight, into_nf4=arguments.into_nf4)
        options = replace(options, known=known_without_recipe(sources, quants, rules, arguments.data, arguments.imatrix))
    paths = export_bare(
        cached_folder(arguments.base),
        arguments.adapter,
        arguments.output,
        quants,
        shares=arguments.weight,
        into_nf4=arguments.into_nf4,
        for_desktop=arguments.profile == "gpt4all",
        options=options,
    )
    for path in paths:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def _part_bytes(arguments: argparse.Namespace) -> int | None:
    if arguments.split_gb is None:
        return None
    if not arguments.split_gb > 0:
        raise ExportError(f"--split-gb must be above 0, not {arguments.split_gb:g}")
    return int(arguments.split_gb * 1e9)


def triage_judge(recipe: Recipe) -> Judge:
    """What measures answers in the middle of a training, by the definitions of ``llmft evaluate``.

    Without probabilities: for ``triage_success`` every answer counts as sure of itself, so it is lower than there.
    """

    def judge(engine: Engine, calls: Sequence[Dialogue]) -> dict[str, float | None]:
        from llmft.evaluate.figures.figure import value_of
        from llmft.evaluate.figures.triage import FIGURES
        from llmft.evaluate.predict import predict

        predictions = predict(_Answers(engine), calls, recipe.data.system, recipe.evaluate.max_new_tokens, "answering")
        return {name: value_of(FIGURES[name], predictions) for name in TRIAGE_METRICS}

    return judge


@dataclass(frozen=True)
class _Answers:
    """An engine without its scorer: probabilities take time, and these figures need none."""

    engine: Engine

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        return self.engine.answers(conversations, max_new_tokens)


def crossval_command(arguments: argparse.Namespace) -> None:
    """``llmft crossval``: train every fold, measure each on the calls that it has not seen, and sum up."""
    from llmft.train.crossval import crossval_folder, train_folds, write_report
    from llmft.train.search import final_loss

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    folds = train_folds(recipe, triage_judge(recipe))
    metrics = [{"validation_loss": final_loss(fold), **({} if arguments.loss_only else _answered(fold))} for fold in folds]
    folder = crossval_folder(recipe)
    for name, found in write_report(recipe.name, folder, metrics).items():
        print(f"{name:28} {found.mean:8.4f}   95 % interval {found.low:.4f} to {found.high:.4f}   {found.folds} folds")
    print(f"report: {folder / 'crossval.md'}")


def _answered(fold: Recipe) -> dict[str, float | None]:
    """The triage metrics of a fold's adapter on the labelled calls of its own fold."""
    from llmft.engine.torch_model import load_adapter
    from llmft.evaluate.figures.triage import measure
    from llmft.evaluate.predict import predict
    from llmft.evaluate.truth import gold_verdict
    from llmft.train.rows import read_split

    calls = [call for call in read_split(fold, "validation") if gold_verdict(call) is not None][: fold.evaluate.max_dialogues]
    if not calls:
        return {}
    engine = load_adapter(str(base_folder(fold)), fold.run.adapter_dir, fold.evaluate.batch_dialogues)
    outcomes = predict(engine, calls, fold.data.system, fold.evaluate.max_new_tokens, fold.name)
    values = measure(outcomes, [call.family_id for call in calls]).values
    return {name: value for name, value in values.items() if value is not None}


def verify_command(arguments: argparse.Namespace) -> int:
    """``llmft verify``: one GGUF, or every GGUF of a recipe's export; 1 when a check fails."""
    from llmft.export.proof.checks import print_report
    from llmft.export.proof.page import write_page
    from llmft.export.verify import Limits, verify

    keep_private()
    files, base, adapters, texts = _to_verify(arguments)
    limits = Limits(threads=arguments.threads, mapped=True if arguments.mapped else None)
    passed = True
    for path in files:
        reference = next((file for file in files if file.stem.endswith("-F16") and file != path), None)
        report = verify(path, base, adapters, texts, shares=arguments.weight, reference_f16=reference, limits=limits)
        passed &= report.passed
        _record(path, report.as_json())
        if arguments.json:
            print(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
        else:
            print_report(report)
    page = write_page(files[0].parent)
    if not arguments.json:
        print(f"report: {page}")
    return 0 if passed else 1


def _to_verify(arguments: argparse.Namespace) -> tuple[list[Path], Path, list[Path], Texts]:
    """The files, F16 first, with the base and adapters that they were made from and texts to compare on."""
    if arguments.file.suffix in (".yaml", ".yml"):
        recipe = load_recipe(arguments.file)
        files = sorted(recipe.exported, key=lambda path: (not path.stem.endswith("-F16"), path.name))
        if not files:
            raise VerifyError(f"{recipe.export_dir} holds no GGUF; make them with: llmft export {arguments.file}")
        texts = verified_texts(arguments.data or Path(recipe.data.folder), recipe.data.system)
        return files, base_folder(recipe), [trained_adapter(recipe)], texts
    if arguments.base is None:
        raise VerifyError(f"say what {arguments.file} was made from (--base DIR --adapter DIR), or give a recipe")
    return [arguments.file], cached_folder(str(arguments.base)), arguments.adapter, verified_texts(arguments.data, None)


def verified_texts(folder: Path | None, system: str | None) -> Texts:
    """Test calls up to the operator's last turn, validation calls whole, and what is said in the test calls."""
    from llmft.export.verify import Texts

    if folder is None:
        return Texts()
    test, validation = _split(folder, "test"), _split(folder, "validation")
    return Texts(
        chats=[to_messages(dialogue, system)[:-1] for dialogue in test[:VERIFY_CHATS]],
        calls=[to_messages(call, system) for call in validation[:PERPLEXITY_CALLS] if call.turns[-1].speaker == "operator"],
        said=[turn.text for dialogue in test for turn in dialogue.turns],
    )


def _split(folder: Path, name: str) -> list[Dialogue]:
    path = folder / f"{name}.jsonl"
    return [parsed for parsed in scan_dialogues(path) if isinstance(parsed, Dialogue)] if path.is_file() else []


def _record(path: Path, report: dict[str, object]) -> None:
    """``verify.json`` beside the file, one entry a GGUF; the model card shows its figures."""
    from llmft.export.delivery.facts import refresh_card

    record = path.parent / "verify.json"
    try:
        entries = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        entries = {}
    write_json(record, {**entries, path.name: report})
    for card in (path.with_name("MODEL_CARD.md"), path.with_name(f"{path.stem}.MODEL_CARD.md")):
        refresh_card(card, record)


def trained_adapter(recipe: Recipe) -> Path:
    """The run's adapter folder."""
    if not recipe.run.adapter_dir.is_dir():
        raise CheckpointError(f"{recipe.run.root} holds no finished adapter; train it with: llmft sft, or go on with --resume")
    require_same_base(recipe.run, base_folder(recipe))
    return recipe.run.adapter_dir


def base_folder(recipe: Recipe) -> Path:
    """The base as a folder; a hub id is looked up in the hub's cache, where training has put it."""
    return Path(recipe.base).expanduser() if recipe.base_is_folder else cached_folder(recipe.base)


def cached_folder(name: str) -> Path:
    """A folder by its path, or the hub's copy of a model by its id; nothing is downloaded."""
    folder = Path(name).expanduser()
    if folder.is_dir() or name.startswith((".", "/", "~")):
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:
        raise RecipeError(
            f"base {name} is not on this machine; give its folder, or download it with: hf download {name}"
        ) from error
