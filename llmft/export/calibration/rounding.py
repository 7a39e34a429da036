"""Layers rounded part by part while calls go through the model twice: as it is, and as far as it has been rounded.

A part is what reads one input: queries, keys and values; what follows attention; gate and up; down. Each is rounded for
what the rounded parts before it send, and makes good what those have lost (see ``file/feedback``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from llmft.export.adapters.merge import in_head_order
from llmft.export.base.checkpoint import Floats
from llmft.export.base.layout import Tensor
from llmft.export.calibration.reader import Enough, Reader
from llmft.export.file.feedback import Spread, groups_of, round_groups, spreads_of
from llmft.export.file.kernels import Bytes
from llmft.export.file.known import Moments

CHUNK_BYTES = 1 << 23  # of float32 weights that a thread rounds at a time


@dataclass(frozen=True)
class Pair:
    """Both before the same layer, and the tensors that are rounded by the name of their module."""

    exact: Reader
    rounded: Reader
    tensors: Mapping[str, Tensor]
    kinds: Mapping[str, Type]  # by the name of the tensor


def rounded_rows(rows: Floats, spreads: Sequence[Spread], kind: Type) -> Floats:
    """``rows`` as a runtime reads them from the file."""
    return np.asarray(dequantize(_in_threads(rows, spreads, kind), kind), np.float32)


def round_layer(both: Pair, number: int) -> dict[str, Bytes]:
    """Bytes by tensor, in the order of the file, of layer ``number``, whose exact weights are in place.

    The exact model can then read that layer; the rounded one has done so. Tensors of which the calls tell nothing are left out.
    """
    exact, rounded = both.exact, both.rounded
    made: dict[str, Bytes] = {}
    with rounded.layer(number, dict(exact.layers[number].named_parameters())) as layer:
        for titles in _parts(both, number):
            moments, drifts = _what_enters(both, number, titles[0])
            spreads, importance = spreads_of(moments, drifts), np.concatenate([np.diag(group) for group in moments])
            for title in titles if spreads else ():
                tensor, linear = both.tensors[_module(exact, number, title)], layer.get_submodule(title)
                kind = both.kinds[tensor.name]
                found = _in_threads(linear.weight.detach().cpu().numpy(), spreads, kind, importance)
                made[tensor.name] = in_head_order(found, tensor)
                _replace(linear, np.asarray(dequantize(found, kind), np.float32))
        for _ in rounded.read():
            pass
    return made


def _module(calls: Reader, number: int, title: str) -> str:
    return f"{calls.layers_name}.{number}.{title}"


def _parts(both: Pair, number: int) -> list[list[str]]:
    """What is to be rounded of a layer, in the order in which a call asks for it; what reads the same input together."""
    import torch

    asked: list[tuple[Any, list[str]]] = []

    def watch(title: str, inputs: Any) -> None:
        titles = next((titles for entering, titles in asked if entering is inputs[0]), None)
        if titles is None:
            asked.append((inputs[0], [title]))
        else:
            titles.append(title)

    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, title=title: watch(title, inputs))
        for title, part in both.exact.layers[number].named_modules()
        if isinstance(part, torch.nn.Linear) and _module(both.exact, number, title) in both.tensors
    ]
    next(both.exact.read(keeps=False))
    for hook in hooks:
        hook.remove()
    return [titles for _, titles in asked]


def _what_enters(both: Pair, number: int, title: str) -> tuple[Moments, Moments]:
    """H and D of a part's inputs, group of columns by group of columns (see ``file/feedback``)."""
    entering: dict[str, Any] = {}

    def watch(name: str, inputs: Any) -> None:
        entering[name] = inputs[0].reshape(-1, inputs[0].shape[-1]).float()  # (tokens, columns)
        raise Enough

    readers = {"exact": both.exact, "rounded": both.rounded}
    hooks = [
        calls.layers[number].get_submodule(title).register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs))
        for name, calls in readers.items()
    ]
    products: list[tuple[Any, Any]] = []
    for _ in zip(both.exact.read(keeps=False), both.rounded.read(keeps=False), strict=True):
        exact, rounded = entering["exact"], entering["rounded"]
        groups = [slice(group.start, group.stop) for group in groups_of(exact.shape[1])]
        products = products or [(_nothing(exact[:, group]), _nothing(exact[:, group])) for group in groups]
        for group, (moments, drift) in zip(groups, products, strict=True):
            moments.addmm_(rounded[:, group].T, rounded[:, group])
            drift.addmm_((exact - rounded)[:, group].T, rounded[:, group])
    for hook in hooks:
        hook.remove()
    tokens = sum(map(len, both.exact.ids))
    moments, drifts = zip(*((_mean(a, tokens), _mean(b, tokens)) for a, b in products), strict=True)
    return moments, drifts


def _nothing(part: Any) -> Any:
    """Of the shape of a product of its columns with each other."""
    return part.new_zeros(part.shape[1], part.shape[1])


def _mean(total: Any, count: int) -> Floats:
    """In place, for it is large."""
    mean: Floats = total.cpu().numpy()
    mean /= np.float32(count)
    return mean


def _replace(linear: Any, weight: Floats) -> None:
    import torch

    linear.weight = torch.nn.Parameter(torch.from_numpy(weight).to(linear.weight.device), requires_grad=False)


def _in_threads(rows: Floats, spreads: Sequence[Spread], kind: Type, importance: Floats | None = None) -> Bytes:
    """``rows`` as bytes, some of them a thread."""
    step = max(1, CHUNK_BYTES // (4 * rows.shape[1]))
    chunks = [rows[start : start + step] for start in range(0, len(rows), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(partial(round_groups, spreads=spreads, kind=kind, importance=importance), chunks)))
