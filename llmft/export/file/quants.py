"""The kinds of file, and which type each tensor gets in them: llama.cpp's own mixtures, rule for rule.

Source: src/llama-quant.cpp of the llama.cpp in llama-cpp-python 0.3.36; a test compares every rule with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gguf import GGML_QUANT_SIZES, LlamaFileType
from gguf import GGMLQuantizationType as Type

from llmft.errors import ExportError, MissingExtraError
from llmft.export.base.layout import Model, Tensor
from llmft.export.file.kernels import NUMPY_TYPES, library

FLOATS = (Type.F32, Type.F16, Type.BF16)


@dataclass(frozen=True)
class Quant:
    """A kind of file: its number in ``general.file_type`` and the type of most of its weights."""

    name: str
    file_type: LlamaFileType
    bulk: Type


QUANTS = {
    name: Quant(name, LlamaFileType[f"ALL_{name}" if name == "F32" else f"MOSTLY_{name}"], bulk)
    for bulk, names in {
        **{kind: (kind.name,) for kind in (*FLOATS, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1)},
        Type.Q2_K: ("Q2_K", "Q2_K_S"),
        Type.Q3_K: ("Q3_K_S", "Q3_K_M", "Q3_K_L"),
        Type.Q4_K: ("Q4_K_S", "Q4_K_M"),
        Type.Q5_K: ("Q5_K_S", "Q5_K_M"),
        Type.Q6_K: ("Q6_K",),
        Type.IQ4_XS: ("IQ4_XS",),
    }.items()
    for name in names
}
# what takes the place of a type whose blocks of 256 do not divide a row
SMALLER_BLOCKS = {
    Type.IQ4_XS: Type.IQ4_NL,
    Type.Q2_K: Type.Q4_0,
    Type.Q3_K: Type.Q4_0,
    Type.Q4_K: Type.Q5_0,
    Type.Q5_K: Type.Q5_1,
    Type.Q6_K: Type.Q8_0,
}
TYPES = {kind.name: kind for kind in (*FLOATS, *NUMPY_TYPES, *SMALLER_BLOCKS, Type.IQ4_NL)}


def parse_quant(name: str) -> Quant:
    """The quant called ``name``, in any case."""
    quant = QUANTS.get(name.strip().upper())
    if quant is None:
        raise ExportError(f"quant {name!r} is not known; choose among {', '.join(QUANTS)}")
    if quant.bulk not in (*FLOATS, *NUMPY_TYPES) and library() is None:
        raise MissingExtraError("llama_cpp", "export")
    return quant


@dataclass(frozen=True)
class Rule:
    """A user's wish: tensors whose name holds ``pattern`` get ``kind``, in every quantised file or in those of one quant."""

    pattern: re.Pattern[str]
    kind: Type
    quant: str | None = None


def parse_rules(wishes: Iterable[str]) -> tuple[Rule, ...]:
    """Rules from texts such as ``ffn_down=Q6_K``, ``Q4_0:ffn_down=Q6_K`` (in that quant's files) or ``blk\\.[01]\\..*=Q8_0``.

    The first that matches counts.
    """
    rules = []
    for wish in wishes:
        first, _, rest = wish.partition(":")
        quant = first.strip().upper() if first.strip().upper() in QUANTS else None
        pattern, equals, name = (wish if quant is None else rest.strip()).rpartition("=")
        kind = TYPES.get(name.strip().upper())
        if not equals or not pattern or kind is None:
            raise ExportError(f"{wish!r} is not of the form PATTERN=TYPE with a type among {', '.join(TYPES)}")
        if kind not in (*FLOATS, *NUMPY_TYPES) and library() is None:
            raise MissingExtraError("llama_cpp", "export")
        try:
            rules.append(Rule(re.compile(pattern), kind, quant))
        except re.error as error:
            raise ExportError(
                f"{pattern!r} is no regular expression ({error}); write it as Python's re module wants it"
            ) from None
    return tuple(rules)


def tensor_types(model: Model, quant: Quant, rules: Sequence[Rule] = (), has_importance: bool = False) -> dict[str, Type]:
    """The type of every tensor of a file, by name."""
    mixture = _Mixture(model, quant, has_importance and library() is not None)
    return {tensor.name: _type_of(tensor, quant, rules, mixture) for tensor in sorted(model.tensors, key=_llama_cpp_order)}


def _llama_cpp_order(tensor: Tensor) -> tuple[int, str]:
    """Its quantiser counts layers in this order."""
    layer = int(tensor.name.split(".")[1]) if tensor.name.startswith("blk.") else -1
    return layer, tensor.name


def _type_of(tensor: Tensor, quant: Quant, rules: Sequence[Rule], mixture: _Mixture) -> Type:
    if len(tensor.shape) < 2 or not tensor.name.endswith("weight") or "_norm.weight" in tensor.name:
        return Type.F32
    if quant.bulk in FLOATS:
        return quant.bulk
    of_file = (rule for rule in rules if rule.quant in (None, quant.name))
    wish = next((rule.kind for rule in of_file if rule.pattern.search(tensor.name)), None)
    return fit(mixture.choose(tensor) if wish is None else wish, tensor.columns)


def fit(wanted: Type, columns: int) -> Type:
    """``wanted``, or what llama.cpp falls back to when its blocks do not divide a row."""
    if columns % GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    smaller = SMALLER_BLOCKS.get(wanted, wanted)
    return smaller if columns % GGML_QUANT_SIZES[smaller][0] == 0 else Type.F16


@dataclass
class _Mixture:
    """llama.cpp's choice. Its counters move on only with tensors that it chose for, so they are kept here too."""

    model: Model
    quant: Quant
    has_importance: bool
    seen: dict[str, int] = field(default_factory=lambda: {"attn_v": 0, "ffn_down": 0})

    def choose(self, tensor: Tensor) -> Type:
        name, bulk = tensor.name, self.quant.bulk
        if name == "output.weight" or (name == "token_embd.weight" and not self.model.has_output):
            return self._head_type(tensor.columns)
        if name == "token_embd.weight":
            return bulk
        part = name.split(".")[2] if name.startswith("blk.") else name
        if part in ("attn_v", "attn_qkv"):
            return self._attention_values(self._count("attn_v"))
        if part == "ffn_down":
            return self._ffn_down(self._count("ffn_down"))
        if part == "attn_output":
            return {"Q2_K": Type.Q3_K, "Q3_K_M": Type.Q4_K, "Q3_K_L": Type.Q5_K}.get(self.quant.name, bulk)
        return bulk

    def _count(self, part: str) -> int:
        self.seen[part] += 1
        return self.seen[part] - 1

    def _head_type(self, columns: int) -> Type:
        bulk = self.quant.bulk
        if bulk == Type.Q8_0 or library() is None or columns % GGML_QUANT_SIZES[bulk][0] != 0:
            return Type.Q8_0
        return Type.Q6_K

    def _attention_values(self, index: int) -> Type:
        name, kind, shares_heads = self.quant.name, self.quant.bulk, self.model.query_groups >= 4
        if name == "Q2_K":
            kind = Type.Q4_K if shares_heads else Type.Q3_K
        elif name == "Q2_K_S" and shares_heads:
            kind = Type.Q4_K
        elif name == "Q3_K_M":
            kind = Type.Q5_K if index < 2 else Type.Q4_K
        elif name == "Q3_K_L" or (name == "IQ4_XS" and shares_heads):
            kind = Type.Q5_K
        elif name in ("Q4_K_M", "Q5_K_M") and self._is_sensitive(index, self._attention_layers()):
            kind = Type.Q6_K
        elif name == "Q4_K_S" and index < 4:
            kind = Type.Q5_K
        # eight heads share each row of a 70B's attn_v: finer costs little there
        return Type.Q5_K if self.model.is_70b and kind in (Type.Q3_K, Type.Q4_K) else kind

    def _attention_layers(self) -> int:
        return sum(tensor.name.endswith(("attn_v.weight", "attn_qkv.weight")) for tensor in self.model.tensors)

    def _ffn_down(self, index: int) -> Type:
        name, bulk, layers = self.quant.name, self.quant.bulk, self.model.layers
        is_early, is_sensitive = index < layers // 8, partial(self._is_sensitive, index, layers)
        if name == "Q2_K":
            return Type.Q3_K
        if name == "Q2_K_S":
            return Type.Q4_K if is_early else bulk
        if name == "Q3_K_M":
            return Type.Q5_K if index < layers // 16 else Type.Q4_K
        if name == "Q3_K_L" or (name == "Q4_K_S" and is_early):
            return Type.Q5_K
        if name in ("Q4_K_M", "Q5_K_M") and is_sensitive():
            return Type.Q6_K
        if name == "IQ4_XS" and is_early and not self.has_importance:
            return Type.Q5_K
        if name in ("Q4_0", "Q5_0") and is_early and self.has_importance:
            return Type.Q4_1 if name == "Q4_0" else Type.Q5_1
        return bulk

    @staticmethod
    def _is_sensitive(index: int, layers: int) -> bool:
        """The first and the last eighth of the layers, and every third between."""
        return index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2
