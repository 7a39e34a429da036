"""The settings that could be used, what each needs and how long a step takes; the fastest that fits is chosen.

Memory is counted (fitting.memory, fitting.trace). Time is a roofline: products at a share of the device's peak, all other
traffic at a share of its bandwidth, and a start for every kernel. The shares are assumptions, written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmft.recipe import Recipe
from llmft.train.fitting.devices import Device
from llmft.train.fitting.memory import Held, head_bytes, held_bytes
from llmft.train.fitting.trace import Growth, trace
from llmft.train.kernels.attention import SOFT_CAPPED

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PRODUCT_SHARE = 0.65  # of the peak, which large products reach
TRAFFIC_SHARE = 0.8  # of the bandwidth
START_S = 5e-6  # for the processor to start a kernel, hidden while the GPU is busy with longer ones
GAP_S = 1.5e-6  # between two kernels on the GPU
SLACK = 1.04  # what the allocator loses between blocks
UNFOLD_BYTES = 0.52 + 2  # read and written for a weight when NF4 is unfolded
PADDING = 1.05  # tokens computed for a real one, when rows of like length are padded together
TRAINED_SHARE = 0.5  # of a call's tokens the operator's, until the rows are known


@dataclass(frozen=True)
class Lengths:
    """The rows that will be trained on, longest first."""

    tokens: tuple[int, ...]
    trained_share: float
    known: bool  # counted, or all taken to be as long as may be

    @property
    def mean(self) -> float:
        """Tokens of a row."""
        return sum(self.tokens) / len(self.tokens)

    @property
    def square(self) -> float:
        """Mean of the squared lengths."""
        return sum(count * count for count in self.tokens) / len(self.tokens)


def longest_rows(recipe: Recipe) -> Lengths:
    """Lengths to assume when no data are at hand."""
    return Lengths((recipe.train.max_tokens,) * recipe.train.batch_dialogues, TRAINED_SHARE, known=False)


@dataclass(frozen=True)
class Settings:
    """One way to make the recipe's optimiser step."""

    quantization: str
    batch_dialogues: int
    accumulate: int
    packing: bool
    gradient_checkpointing: bool

    def fields(self) -> dict[str, object]:
        """As fields of a recipe."""
        return {f"train.{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Candidate:
    """Settings, and what they are predicted to take."""

    settings: Settings
    peak_bytes: int
    step_s: float
    tokens_s: float  # real tokens, padding not counted


@dataclass(frozen=True)
class Plan:
    """All candidates, fastest first, and what they were made for."""

    device: Device
    lengths: Lengths
    held: Held
    candidates: tuple[Candidate, ...]

    def fits(self, candidate: Candidate) -> bool:
        """Whether the device has room for it."""
        return candidate.peak_bytes <= self.device.usable_bytes

    @property
    def choice(self) -> Candidate | None:
        """The fastest that fits; None when nothing does."""
        return next((candidate for candidate in self.candidates if self.fits(candidate)), None)


def make_plan(config: PretrainedConfig, recipe: Recipe, device: Device, lengths: Lengths) -> Plan:
    """Consider every way to make the recipe's optimiser step on ``device``; the dialogues of a step stay as many."""
    growths = {checkpointing: trace(config, recipe, checkpointing=checkpointing) for checkpointing in (False, True)}
    ground = Ground(config, recipe, device, lengths, held_bytes(config, recipe), growths)
    found = [ground.candidate(settings) for settings in possible(config, recipe, device)]
    ranked = sorted(found, key=lambda candidate: (candidate.step_s, candidate.peak_bytes))
    return Plan(device, lengths, ground.held, tuple(ranked))


def possible(config: PretrainedConfig, recipe: Recipe, device: Device) -> list[Settings]:
    """Every combination: how the base is held, dialogues a pass, checkpointing; packed wherever packing costs nothing."""
    step = recipe.train.batch_dialogues * recipe.train.accumulate
    packing = recipe.train.packing or config.model_type not in SOFT_CAPPED
    return [
        Settings(quantization, batch, step // batch, packing, checkpointing)
        for quantization in quantizations(config, recipe, device)
        for batch in range(1, step + 1)
        if step % batch == 0
        for checkpointing in (False, True)
    ]


def quantizations(config: PretrainedConfig, recipe: Recipe, device: Device) -> list[str]:
    """How the base may be held: an export that merges into what NF4 has made of the weights needs NF4."""
    if recipe.export.merge_base != "original":
        return ["nf4"]
    shape = config.get_text_config()
    odd = [width for width in (shape.hidden_size, getattr(shape, "intermediate_size", None)) if width and width % 64]
    return ["none"] if odd and not device.gpu else ["none", "nf4"]


@dataclass(frozen=True)
class Ground:
    """What all candidates of a plan have in common."""

    config: PretrainedConfig
    recipe: Recipe
    device: Device
    lengths: Lengths
    held: Held
    growths: dict[bool, Growth]  # without and with checkpointing

    def candidate(self, settings: Settings) -> Candidate:
        """Memory and time of ``settings``."""
        seconds = settings.accumulate * self.pass_seconds(settings)
        tokens = settings.batch_dialogues * settings.accumulate * self.lengths.mean
        return Candidate(settings, self.peak_bytes(settings), seconds, tokens / seconds)

    def peak_bytes(self, settings: Settings) -> int:
        """The worst moment of the pass with the longest rows: within the blocks, or while the head is at work."""
        rows = self._longest(settings.batch_dialogues)
        tokens, squares = self._size(rows, settings) if settings.packing else self._size([rows[0]] * len(rows), settings)
        cost = self.growths[settings.gradient_checkpointing].of(tokens, squares)
        trained = sum(rows) * self.lengths.trained_share
        head = head_bytes(self.config, trained, tokens, self.recipe, gpu=self.device.gpu)
        steady = self.held.weights(settings.quantization) + self.held.trained()
        return int(steady + SLACK * max(cost.peak_bytes, cost.saved_bytes + head))

    def pass_seconds(self, settings: Settings) -> float:
        """A forward and backward pass over rows of the usual lengths."""
        batch = settings.batch_dialogues
        padded = 1.0 if settings.packing else PADDING
        tokens, squares = batch * self.lengths.mean * padded, batch * self.lengths.square * padded
        if settings.packing and not self._fused:
            squares = tokens * tokens
        cost = self.growths[settings.gradient_checkpointing].of(tokens, squares)
        flops = cost.flops + self._attention_flops(squares, settings) + self._head_flops(tokens)
        moved = cost.moved_bytes + self._unfolded_bytes(settings)
        busy = flops / (PRODUCT_SHARE * self.device.flops) + moved / (TRAFFIC_SHARE * self.device.bytes_s)
        return max(busy + cost.calls * GAP_S, cost.calls * START_S) if self.device.gpu else busy

    @property
    def _fused(self) -> bool:
        return self.config.model_type not in SOFT_CAPPED

    def _longest(self, count: int) -> list[int]:
        return [self.lengths.tokens[min(place, len(self.lengths.tokens) - 1)] for place in range(count)]

    def _size(self, rows: Sequence[int], settings: Settings) -> tuple[int, int]:
        """Tokens, and squared row lengths; a packed row without fused attention is one long row."""
        tokens = sum(rows)
        whole = settings.packing and not self._fused
        return tokens, tokens * tokens if whole else sum(count * count for count in rows)

    def _attention_flops(self, squares: float, settings: Settings) -> float:
        """Fused attention: half of two products forward, two and a half times as much backward (arXiv 2205.14135)."""
        if not self._fused:
            return 0.0  # traced with the rest
        shape = self.config.get_text_config()
        width = shape.num_attention_heads * (getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads)
        passes = 4.5 if settings.gradient_checkpointing else 3.5
        return float(passes * 2 * squares * width * shape.num_hidden_layers)

    def _head_flops(self, tokens: float) -> float:
        shape = self.config.get_text_config()
        return float(3 * 2 * tokens * self.lengths.trained_share * shape.vocab_size * shape.hidden_size)

    def _unfolded_bytes(self, settings: Settings) -> float:
        """NF4 is unfolded in every pass over the weights, so large batches pay less for it."""
        if settings.quantization != "nf4":
            return 0.0
        return self.held.folded * UNFOLD_BYTES * (3 if settings.gradient_checkpointing else 2)
