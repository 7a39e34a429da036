"""One streaming pass from a base and its adapter to one or more GGUF files.

Every chunk of rows is read once, merged in float32, quantised once for each file and written at once, so that
memory holds a few chunks whatever the size of the model, and nothing lies on the disk but the files asked for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type

from llmft.errors import CheckpointError, ExportError
from llmft.export import card, families, quantize
from llmft.export.adapter import Adapter, check_fit, read_adapter
from llmft.export.checkpoint import Checkpoint, Floats, read_base
from llmft.export.families import Model, Tensor
from llmft.export.header import Output, begin_file, file_bytes, pad
from llmft.export.quantize import Bytes, Quant, parse_quant
from llmft.export.tokenizer import Vocabulary, read_vocabulary, tokenizer_folder
from llmft.run import PARTIAL, atomic_path, require_space

CHUNK_BYTES = 1 << 19  # float32 bytes of one unit of work: stays in a core's cache, and malloc keeps the pages
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Sources:
    """What a file is made from, read and checked, the weights still on the disk."""

    base: Checkpoint
    adapter: Adapter | None
    model: Model
    vocabulary: Vocabulary


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
        raise ExportError("no quant was given; choose among " + ", ".join(quantize.QUANTS))
    if not name or Path(name).name != name:
        raise ExportError(f"{name!r} cannot be part of a file name; choose a name without '/'")
    paths = {kind: output_dir / f"{name}-{kind.name}.gguf" for kind in kinds}
    sources = read_sources(base_dir, adapter_dir)
    _write(sources, paths, name, force, threads)
    card.write_companions(sources.base, sources.adapter, sources.vocabulary, output_dir, name, paths, system_message)
    return list(paths.values())


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
    kind = parse_quant(quant)
    _write(read_sources(base_dir, adapter_dir), {kind: output_path}, output_path.stem, force, threads)
    return output_path


def read_sources(base_dir: Path, adapter_dir: Path | None) -> Sources:
    """Read and check everything but the weights themselves."""
    base = read_base(base_dir)
    adapter = None if adapter_dir is None else read_adapter(adapter_dir)
    if adapter is not None:
        check_fit(adapter, base, families.has_tied_head(base))
    loras = frozenset(adapter.loras) if adapter is not None else frozenset[str]()
    model = families.describe(base, loras)
    unmerged = sorted(loras - {tensor.module for tensor in model.tensors})
    if adapter is not None and unmerged:
        raise CheckpointError(f"{adapter.folder} changes {unmerged[0]!r}, which has no place in the GGUF")
    folder = tokenizer_folder(base_dir, adapter_dir)
    return Sources(base, adapter, model, read_vocabulary(folder, model.vocabulary_size, model.has_bos))


def _write(sources: Sources, paths: dict[Quant, Path], name: str, force: bool, threads: int | None) -> None:
    existing = [path for path in paths.values() if path.exists()]
    if existing and not force:
        raise ExportError(f"{existing[0]} exists already; delete it, choose another name, or overwrite it with --force")
    for path in paths.values():
        _refuse_file_for_folder(path.parent)
        path.with_name(path.name + PARTIAL).unlink(missing_ok=True)  # of an export that was killed
    size_bytes = sum(file_bytes(sources.model, quant) for quant in paths)
    require_space(next(iter(paths.values())).parent, size_bytes)
    with ExitStack() as stack:
        outputs = []
        for quant, path in paths.items():
            partial = stack.enter_context(atomic_path(path))
            outputs.append(begin_file(stack, partial, quant, sources.model, sources.vocabulary, name))
        total = sum(int(np.prod(tensor.shape)) for tensor in sources.model.tensors)
        stack.enter_context(_one_thread_a_product())
        advance = stack.enter_context(_progress(f"{name} → {', '.join(quant.name for quant in paths)}", total))
        for tensor in sources.model.tensors:
            _write_tensor(tensor, sources, outputs, threads or _cores(), advance)


def _refuse_file_for_folder(folder: Path) -> None:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ExportError(f"{existing} is a file, so nothing can be written into it; choose a folder")


def _write_tensor(tensor: Tensor, sources: Sources, outputs: list[Output], threads: int, advance: Callable[[int], None]) -> None:
    """Read one tensor chunk by chunk and write it to every file, in order, a few chunks in the air."""
    kinds = [output.mixture.type_of(tensor.name, tensor.shape) for output in outputs]
    lora = sources.adapter.loras.get(tensor.module or "") if sources.adapter is not None else None
    matrices = None if lora is None else lora.read()

    def work(start: int, stop: int) -> list[Bytes]:
        rows = _merged_rows(tensor, matrices, start, stop)
        _refuse_unusable(tensor, rows, Type.F16 in kinds)
        made = {kind: quantize.quantize_rows(rows, kind) for kind in set(kinds)}
        return [made[kind] for kind in kinds]

    chunks = list(_chunks(tensor))
    with ThreadPoolExecutor(threads) as pool:
        for (start, stop), pieces in zip(chunks, _in_order(pool, work, chunks, 2 * threads), strict=True):
            for output, piece in zip(outputs, pieces, strict=True):
                output.file.write(piece.data)
            advance((stop - start) * tensor.shape[-1])
    for output in outputs:
        pad(output.file, output.file.tell())


def _chunks(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Row ranges of about CHUNK_BYTES that never cut a head whose rows are reordered."""
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    step = max(1, CHUNK_BYTES // (4 * tensor.shape[-1]))
    if tensor.head_order is not None:
        head = len(tensor.head_order)
        step = max(head, step // head * head)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[int, int], list[Bytes]],
    ranges: Sequence[tuple[int, int]],
    most_in_flight: int,
) -> Iterator[list[Bytes]]:
    """Results in the order of ``ranges``; the bound on unwritten results is the bound on memory."""
    waiting: deque[Future[list[Bytes]]] = deque()
    for start, stop in ranges:
        waiting.append(pool.submit(work, start, stop))
        if len(waiting) >= most_in_flight:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _merged_rows(tensor: Tensor, matrices: tuple[Floats, Floats] | None, start: int, stop: int) -> Floats:
    """Rows of base plus LoRA in float32, heads reordered; a vector counts as one row."""
    if tensor.stored is None:
        assert tensor.constant is not None
        return tensor.constant.reshape(-1, tensor.shape[-1])[start:stop]
    if len(tensor.shape) == 1:
        return tensor.stored.rows(0, tensor.shape[0]).reshape(1, -1)
    rows = tensor.stored.rows(start, stop)
    if matrices is not None:
        rows = rows + matrices[1][start:stop] @ matrices[0]
    if tensor.head_order is None:
        return rows
    heads = rows.reshape(-1, len(tensor.head_order), rows.shape[-1])
    return heads[:, tensor.head_order].reshape(rows.shape)


def _refuse_unusable(tensor: Tensor, rows: Floats, as_float16: bool) -> None:
    """Raise CheckpointError for NaN and infinity, which quantisation would turn into silent nonsense."""
    highest = max(float(rows.max()), -float(rows.min()))  # both carry a NaN through
    if not np.isfinite(highest):
        raise CheckpointError(
            f"{tensor.name!r} has a weight that is not a number or infinite, after base and adapter were added; "
            "the training diverged or a file is damaged"
        )
    if as_float16 and highest > FLOAT16_MAX:
        raise CheckpointError(f"{tensor.name!r} has a weight of {highest:.0f}, beyond float16; choose Q8_0 instead")


def _one_thread_a_product() -> AbstractContextManager[Any]:
    """Our threads already fill the cores; BLAS's own would wait for each other by spinning, up to 70 times slower."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(1)
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
