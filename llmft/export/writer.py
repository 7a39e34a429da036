"""From a base and its adapters to one or more GGUF files: whole ones, or none under a final name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from llmft.errors import ExportError
from llmft.export.base.layout import Model, Tensor
from llmft.export.delivery import card
from llmft.export.delivery.desktop import require_desktop
from llmft.export.file.header import Part, Plan, plan, vocabulary_file
from llmft.export.file.journal import Journal, finished_tensors, identity, journal_path
from llmft.export.file.known import Given, Known
from llmft.export.file.quants import QUANTS, Quant, Rule, parse_quant, tensor_types
from llmft.export.file.stream import Output, in_order, work_of
from llmft.export.sources import Sources, read_sources
from llmft.export.vocabulary.check import checked_vocabulary
from llmft.run import PARTIAL, disk_error, require_space


@dataclass(frozen=True)
class Options:
    """How files are written."""

    rules: tuple[Rule, ...] = ()
    known: Known = field(default_factory=Given)  # what is known of each tensor's inputs
    part_bytes: int | None = None  # files larger than this are split
    threads: int | None = None
    force: bool = False


DEFAULTS = Options()
EMBEDDING = "token_embd.weight"


def export(
    base_dir: Path,
    adapter_dir: Path | None,
    output_dir: Path,
    name: str,
    quants: Sequence[str],
    *,
    force: bool = False,
    threads: int | None = None,
    system_message: str = "",
) -> list[Path]:
    """Write ``<output_dir>/<name>-<quant>.gguf`` for each quant, and the files that go with them.

    ``system_message`` goes into the settings for GPT4All and Ollama. Raises CheckpointError when base and
    adapter cannot be read or do not fit, ExportError for a file that exists, DiskError for a full disk.
    """
    kinds = list(dict.fromkeys(parse_quant(quant) for quant in quants))
    if not kinds:
        raise ExportError("no quant was given; choose among " + ", ".join(QUANTS))
    if not name or Path(name).name != name:
        raise ExportError(f"{name!r} cannot be part of a file name; choose a name without '/'")
    paths = {kind: output_dir / f"{name}-{kind.name}.gguf" for kind in kinds}
    sources = read_sources(base_dir, [] if adapter_dir is None else [adapter_dir])
    written = write_files(sources, paths, name, Options(threads=threads, force=force))
    card.write_companions(sources, output_dir, name, written, system_message)
    return [path for group in written.values() for path in group]


def export_file(
    base_dir: Path,
    adapter_dir: Path | None,
    output_path: Path,
    quant: str,
    force: bool = False,
    *,
    threads: int | None = None,
) -> Path:
    """Write one GGUF to ``output_path`` and nothing else; errors as for :func:`export`."""
    if output_path.suffix != ".gguf":
        raise ExportError(f"{output_path} must end in .gguf, or GPT4All and llama.cpp will not see it")
    sources = read_sources(base_dir, [] if adapter_dir is None else [adapter_dir])
    write_files(sources, {parse_quant(quant): output_path}, output_path.stem, Options(threads=threads, force=force))
    return output_path


def export_bare(
    base_dir: Path,
    adapter_dirs: Sequence[Path],
    output_path: Path,
    quants: Sequence[str],
    *,
    shares: Sequence[float] = (),
    into_nf4: bool = False,
    for_desktop: bool = False,
    options: Options = DEFAULTS,
) -> list[Path]:
    """Any base with any PEFT adapters, without a recipe: ``FILE.gguf``, or ``FILE-<quant>.gguf`` each for several quants.

    What goes with the files lies beside them under names that begin with the file's. ``for_desktop`` refuses a model
    that GPT4All desktop cannot run. Errors as for :func:`export`.
    """
    if output_path.suffix != ".gguf":
        raise ExportError(f"{output_path} must end in .gguf, or GPT4All and llama.cpp will not see it")
    kinds = list(dict.fromkeys(parse_quant(quant) for quant in quants))
    one = len(kinds) == 1
    paths = {kind: output_path if one else output_path.with_name(f"{output_path.stem}-{kind.name}.gguf") for kind in kinds}
    sources = read_sources(base_dir, adapter_dirs, shares, into_nf4=into_nf4)
    if for_desktop:
        require_desktop(sources, has_parts=options.part_bytes is not None)
    written = write_files(sources, paths, output_path.stem, options)
    card.write_companions(sources, output_path.parent, output_path.stem, written, "", prefix=output_path.stem + ".")
    return [path for group in written.values() for path in group]


def write_files(sources: Sources, paths: Mapping[Quant, Path], name: str, options: Options) -> dict[Quant, list[Path]]:
    """Write one file, or its parts, for each quant; returns them. Goes on where a killed export of the same was."""
    plans = [_plan(sources, path, name, quant, options) for quant, path in paths.items()]
    parts = [part for each in plans for part in each.parts]
    _refuse_existing(parts, options)
    journal = journal_path(parts[0].path)
    made_from = identity((part.header for part in parts), _stamped(sources), _choices(sources, plans, options))
    finished = _resumable(journal, made_from, parts, in_writing_order(sources.model))
    try:
        require_space(parts[0].path.parent, sum(part.size_bytes - _reusable(part, finished) for part in parts))
        with _checked(sources, parts[0].path):
            _write_all(sources, plans, name, options, journal, made_from, finished)
        _rename(parts)
    except KeyboardInterrupt:
        raise  # as after a kill, the next export goes on
    except OSError as error:
        _discard(parts)
        raise disk_error(parts[0].path, error) from error
    except BaseException:
        _discard(parts)
        raise
    journal.unlink(missing_ok=True)
    return {each.quant: [part.path for part in each.parts] for each in plans}


def in_writing_order(model: Model) -> list[Tensor]:
    """Tensors in the order in which calls tell about them, which is the file's but for an embedding that is the head too."""
    return sorted(model.tensors, key=lambda tensor: tensor.name == EMBEDDING and not model.has_output)


def _checked(sources: Sources, path: Path) -> AbstractContextManager[None]:
    """The tokenizer's check runs beside the writing; where it fails, no file gets its final name."""
    vocabulary = sources.vocabulary
    small = vocabulary_file(path, sources.model, vocabulary)
    scratch = path.with_name(path.name + ".vocabulary" + PARTIAL)
    start = vocabulary.bos_token or vocabulary.eos_token
    return checked_vocabulary(small, sources.tokenizer_dir / "tokenizer.json", start, scratch)


def _plan(sources: Sources, path: Path, name: str, quant: Quant, options: Options) -> Plan:
    types = tensor_types(sources.model, quant, options.rules, options.known.weighs)
    _refuse_file_for_folder(path.parent)
    try:
        return plan(path, name, quant, types, sources.model, sources.vocabulary, options.part_bytes)
    except OSError as error:
        raise disk_error(path, error) from error


def _refuse_file_for_folder(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ExportError(f"{existing} is a file, so nothing can be written into it; choose a folder")


def _refuse_existing(parts: Sequence[Part], options: Options) -> None:
    existing = [part.path for part in parts if part.path.exists()]
    if existing and not options.force:
        raise ExportError(f"{existing[0]} exists already; delete it, choose another name, or overwrite it with --force")


def _stamped(sources: Sources) -> list[Path]:
    weights = {stored.path for stored in sources.base.tensors.values()}
    return sorted(weights | {adapter.folder / "adapter_model.safetensors" for adapter in sources.adapters})


def _choices(sources: Sources, plans: Sequence[Plan], options: Options) -> str:
    """What else decides the bytes of a file."""
    shares = [(str(adapter.folder), adapter.share, sorted(adapter.config.items(), key=str)) for adapter in sources.adapters]
    return repr((sources.merge_base, shares, [sorted(each.types.items()) for each in plans], options.known.identity))


def _partial(part: Part) -> Path:
    return part.path.with_name(part.path.name + PARTIAL)


def _resumable(journal: Path, made_from: str, parts: Sequence[Part], tensors: Sequence[Tensor]) -> int:
    """Tensors that need not be written again; what an export of something else left is removed."""
    finished = finished_tensors(journal, made_from)
    names = {tensor.name for tensor in tensors[:finished]}
    for part in parts:
        last = max((offset for name, offset in part.offsets.items() if name in names), default=-1)
        due = min((offset for offset in part.offsets.values() if offset > last), default=part.size_bytes)
        if not _partial(part).is_file() or _partial(part).stat().st_size < due:
            finished = 0
    if not finished:
        _discard(parts)
    return finished


def _rename(parts: Sequence[Part]) -> None:
    """All parts are whole: give them their names, and make the names themselves survive a power cut."""
    for part in parts:
        _partial(part).replace(part.path)
    if os.name == "posix":
        folder = os.open(parts[0].path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _discard(parts: Sequence[Part]) -> None:
    for part in parts:
        _partial(part).unlink(missing_ok=True)
    journal_path(parts[0].path).unlink(missing_ok=True)


def _reusable(part: Part, finished: int) -> int:
    return _partial(part).stat().st_size if finished else 0


def _write_all(
    sources: Sources, plans: Sequence[Plan], name: str, options: Options, journal: Path, made_from: str, finished: int
) -> None:
    tensors, threads = in_writing_order(sources.model), options.threads or _cores()
    with ExitStack() as stack:
        outputs = [Output(each, [_open(stack, part, finished) for part in each.parts]) for each in plans]
        files = [file for output in outputs for file in output.files]
        notes = Journal(journal, made_from, files, stack.enter_context(ThreadPoolExecutor(1)))
        notes.begin(finished)
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        stack.enter_context(_one_thread_a_product())
        total = sum(tensor.rows * tensor.columns for tensor in tensors)
        advance = stack.enter_context(_progress(f"{name} → {', '.join(each.quant.name for each in plans)}", total))
        advance(sum(tensor.rows * tensor.columns for tensor in tensors[:finished]))
        work = work_of(sources, outputs, tensors[finished:], options.known)
        for done in in_order(pool, work, 2 * threads):
            tensor = tensors[finished + done.number]
            for output, piece in zip(outputs, done.pieces, strict=True):
                output.write(tensor, piece)
            if done.is_last:
                notes.note(finished + done.number + 1, sum(output.end(tensor) for output in outputs))
            advance(done.weights)
        for file in files:
            file.flush()
            os.fsync(file.fileno())


def _open(stack: ExitStack, part: Part, finished: int) -> BinaryIO:
    file = stack.enter_context(_partial(part).open("r+b" if finished else "wb"))
    if not finished:
        file.write(part.header)
    return file


def _one_thread_a_product() -> AbstractContextManager[Any]:
    """Our threads already fill the cores; BLAS's own would wait for each other by spinning, up to 70 times slower."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")  # not PyTorch's, which reads calls meanwhile
    return limits


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that counts weights; silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda amount: progress.advance(task, amount)
