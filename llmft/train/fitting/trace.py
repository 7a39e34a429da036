"""One forward and backward pass over layers that have shapes and no numbers: what it keeps, makes and moves.

PyTorch's fake tensors run the model's own code, adapter, autocast and checkpointing included, without memory and without
arithmetic. A layer's cost is the difference of a model of two layers and one of one, so a model of any size costs a
second, and a family needs no formula of its own.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from llmft.recipe import Recipe
from llmft.train.adapter import adapter_config, share_inputs
from llmft.train.kernels.attention import OWN_ATTENTION, attend_segments, no_mask, use_segments
from llmft.train.kernels.gptj import fuse_gptj_attention

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TOKENS = 512  # of the traced row
TRACED = "llmft_traced"  # name of the attention that is traced


@dataclass(frozen=True)
class Cost:
    """Of a pass: bytes held between forward and backward, bytes at the worst moment, products, traffic, calls."""

    saved_bytes: float = 0.0
    peak_bytes: float = 0.0
    flops: float = 0.0  # of matrix products, attention's own left out where it is fused
    moved_bytes: float = 0.0  # read and written by everything else
    calls: float = 0.0  # kernels that must be started

    def plus(self, other: Cost, times: float = 1.0) -> Cost:
        """This and ``times`` the other."""
        return Cost(*(getattr(self, field.name) + times * getattr(other, field.name) for field in fields(self)))

    def scaled(self, times: float) -> Cost:
        """``times`` this."""
        return Cost().plus(self, times)


@dataclass(frozen=True)
class Growth:
    """A cost that grows with the tokens of a pass, and where attention is not fused with their square too."""

    fixed: Cost  # calls alone do not grow
    a_token: Cost
    a_square: Cost

    def of(self, tokens: float, squares: float) -> Cost:
        """Of a pass with so many tokens; ``squares`` is the sum of the squared row lengths."""
        return self.fixed.plus(self.a_token, tokens).plus(self.a_square, squares)


def trace(config: PretrainedConfig, recipe: Recipe, *, checkpointing: bool) -> Growth:
    """The cost of a whole model's blocks, without the head."""
    long = _all_layers(config, recipe, TOKENS, checkpointing)
    calls = Cost(calls=long.calls)
    if _attention(config) != "eager":
        return Growth(calls, long.plus(calls, -1).scaled(1 / TOKENS), Cost())
    short = _all_layers(config, recipe, TOKENS // 2, checkpointing).plus(calls, -1)
    square = long.plus(calls, -1).plus(short, -2).scaled(2 / TOKENS**2)  # f(t) = a t + b t², so f(t) - 2 f(t/2) = b t²/2
    return Growth(calls, long.plus(calls, -1).plus(square, -(TOKENS**2)).scaled(1 / TOKENS), square)


def _all_layers(config: PretrainedConfig, recipe: Recipe, tokens: int, checkpointing: bool) -> Cost:
    one, two = (pass_cost(shadow(config, recipe, layers), tokens, checkpointing=checkpointing) for layers in (1, 2))
    return one.plus(two.plus(one, -1), config.num_hidden_layers - 1)


def _attention(config: PretrainedConfig) -> str:
    if config.model_type == "gptj":
        return "sdpa"  # load_base sees to it
    return str(empty_model(config, 1).config._attn_implementation)


def empty_model(config: PretrainedConfig, layers: int | None = None) -> PreTrainedModel:
    """The base without numbers, in bfloat16 as it is loaded, of the first ``layers`` layers; None: of all."""
    import torch
    from transformers import AutoModelForCausalLM

    shape = copy.deepcopy(config)
    if layers is not None:
        shape.num_hidden_layers = layers
        if getattr(shape, "layer_types", None) is not None:
            shape.layer_types = shape.layer_types[:layers]
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16, trust_remote_code=False)
    return model


def with_adapter(model: PreTrainedModel, recipe: Recipe) -> Any:
    """``model`` with the recipe's adapter in the recipe's type; every block has one."""
    import torch
    from peft import get_peft_model

    every_block = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"blocks": None})})
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.device("meta"):
        adapted = get_peft_model(model, adapter_config(every_block, model), autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            whole = recipe.lora.dtype == "float32" or "magnitude" in name
            parameter.data = parameter.data.to(torch.float32 if whole else torch.bfloat16)
    share_inputs(adapted)
    return adapted


def shadow(config: PretrainedConfig, recipe: Recipe, layers: int) -> Any:
    """A model of ``layers`` layers with its adapter, ready to be traced."""
    model = with_adapter(empty_model(config, layers), recipe)
    fuse_gptj_attention(model.get_base_model())
    _attend_without_mask(model.get_base_model())
    return model


def _attend_without_mask(model: PreTrainedModel) -> None:
    """A single row needs no mask, but transformers makes one while tracing; a window needs no memory of its own."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if not use_segments(model) or model.config.model_type in OWN_ATTENTION:
        return

    def attend(*tensors: Any, sliding_window: int | None = None, **named: Any) -> Any:
        return attend_segments(*tensors, **named)

    AttentionInterface.register(TRACED, attend)
    AttentionMaskInterface.register(TRACED, no_mask)
    model.set_attn_implementation(TRACED)


def pass_cost(model: Any, tokens: int, *, checkpointing: bool) -> Cost:
    """Trace one forward and backward pass of ``model``, which lies on the meta device, over one row of ``tokens``."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        _become_fake(model)
        base = model.get_base_model()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
        model.train()
        meter = _meter()
        saved = SavedBytes(model)
        with meter:
            with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(saved.note, lambda held: held):
                hidden = base.base_model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False).last_hidden_state
            hidden.backward(torch.empty_like(hidden))
    return Cost(saved.total, meter.peak, meter.flops, meter.moved, meter.calls)


def _become_fake(model: Any) -> None:
    """Meta tensors become fake ones of the CPU, on which autocast and fused attention behave as on a real device."""
    import torch

    for module in model.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
        for name, tensor in module._buffers.items():
            if tensor is not None:
                module._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


class SavedBytes:
    """Counts what autograd keeps for the backward pass: each storage once, the model's own weights not at all."""

    def __init__(self, model: Any) -> None:
        own = (*model.parameters(), *model.buffers())
        self.known = {tensor.untyped_storage()._cdata for tensor in own}
        self.held: list[Any] = []  # so that no storage's address is used twice
        self.total = 0

    def note(self, tensor: Any) -> Any:
        """The hook for packing."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.held.append(storage)
            self.total += storage.nbytes()
        return tensor


def _meter() -> Any:
    """A mode that sees every call: counts products, traffic, and the bytes that are alive at once."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class Meter(TorchDispatchMode):
        """Live bytes follow the storages themselves: one is gone when nobody holds it."""

        live = peak = flops = moved = calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            read = _tensors(tree_leaves((args, kwargs)))
            written = _tensors(tree_leaves(made))
            known = {tensor.untyped_storage()._cdata for tensor in read}
            for tensor in written:
                storage = tensor.untyped_storage()
                if storage._cdata not in known:
                    known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self.drop, storage.nbytes()).atexit = False
            self.peak = max(self.peak, self.live)
            if func.is_view:
                return made
            self.calls += 1
            count = flop_registry.get(func.overloadpacket)
            if count is not None and "attention" not in func.name():
                self.flops += count(*args, **(kwargs or {}), out_val=made)
            elif count is None:
                self.moved += sum(tensor.nbytes for tensor in (*read, *written))
            return made

        def drop(self, size_bytes: int) -> None:
            """A storage is gone."""
            self.live -= size_bytes

    return Meter()


def _tensors(leaves: list[Any]) -> list[Any]:
    import torch

    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
