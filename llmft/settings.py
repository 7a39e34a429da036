"""The sections of a recipe: every choice with its type, its default, its unit, and the source of its gain."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quant = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_XS",
]  # fmt: skip
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]  # 1 would drop every input, and transformers takes it for one step
Rate = Annotated[float, Field(gt=0, lt=1)]
TriageMetric = Literal["emergency_recall", "triage_success", "specialty_macro_f1", "urgency_kappa"]  # of those of an evaluation
TRIAGE_METRICS: tuple[str, ...] = get_args(TriageMetric)


class Section(BaseModel):
    """Unknown keys are errors, types are not converted, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """What to train and evaluate on."""

    folder: str = Field(description="prepared folder with train.jsonl, validation.jsonl and test.jsonl")
    system: str | None = Field(
        default="Assistant de triage d'un centre d'appels médical.", description="system message; null for none"
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="validate on this fold of folds.jsonl, from 0, and train on the others; null: the splits as they are",
    )


class Lora(Section):
    """The adapter."""

    rank: Positive = Field(default=16, description="rank of the two low-rank matrices")
    alpha: Positive = Field(default=32, description="scale of the update: alpha / rank")
    dropout: Fraction = Field(default=0.0, description="dropout on the adapter's input, 0 to 1")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank): high ranks learn (arXiv 2312.03732)")
    dora: bool = Field(
        default=False, description="learn each column's length apart: better at low rank, slower (arXiv 2402.09353)"
    )
    targets: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="linear layers to adapt, such as [q_proj, v_proj]; null: all but the head"
    )
    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, min_length=1, description="numbers of the blocks to adapt, from 0; null: all"
    )
    b_rate_ratio: Annotated[float, Field(ge=1)] = Field(
        default=1.0, description="learning rate of B over that of A; LoRA+ advises 16 (arXiv 2402.12354)"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the trained weights; in bfloat16 small late updates vanish, and memory is halved"
    )


class Train(Section):
    """The optimisation."""

    fit: Literal["off", "auto"] = Field(
        default="off",
        description="auto: choose quantization, batch_dialogues, accumulate, packing and gradient_checkpointing for the machine",
    )
    quantization: Literal["nf4", "none"] = Field(default="nf4", description="how the frozen base is held: nf4 (QLoRA) or none")
    epochs: Annotated[float, Field(gt=0)] = Field(default=1.0, description="passes over the training dialogues")
    corrected_repeats: Positive = Field(
        default=1, description="how often a pass meets a call whose answer operators corrected; docs/desk.md"
    )
    max_steps: int = Field(default=-1, ge=-1, description="optimiser steps; -1: as many as the epochs need")
    batch_dialogues: Positive = Field(default=8, description="dialogues in one forward pass of one process")
    accumulate: Positive = Field(default=1, description="forward passes in one optimiser step")
    learning_rate: Rate = Field(default=2e-4, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="cosine", description="learning rate after the warm-up")
    warmup_fraction: Fraction = Field(default=0.03, description="share of the steps with a rising learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="AdamW's weight decay")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = Field(
        default="adamw", description="8-bit states (arXiv 2110.02861), or states that move to RAM at need (arXiv 2305.14314)"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(default=1.0, description="gradients are clipped to this norm")
    stop_grad_norm: Annotated[float, Field(gt=0)] = Field(
        default=1e4, description="a gradient norm above this, before clipping, stops the run and names the rows"
    )
    neftune_noise: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="noise on the embeddings; 5 is usual, 0 for none (arXiv 2310.05914)"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of each label spread over the vocabulary, 0 for none; slower (arXiv 1512.00567)"
    )
    max_tokens: Positive = Field(default=1024, description="longest row in tokens; nothing is ever cut inside a turn")
    long_dialogues: Literal["refuse", "split"] = Field(
        default="refuse",
        description="longer dialogues: refuse them, or split them between turns, the system message at the head of each part",
    )
    packing: bool = Field(
        default=False, description="lay the dialogues of a batch end to end instead of padding them; they do not see each other"
    )
    gradient_checkpointing: bool = Field(default=False, description="trade a third of the speed for memory")
    save_every: Positive = Field(default=50, description="steps between checkpoints")
    keep_checkpoints: Positive = Field(default=2, description="how many of the last checkpoints are kept, beside the best")
    validate_every: Positive = Field(default=50, description="steps between validation losses; the last step is validated too")
    keep: Literal["last", "best"] = Field(default="last", description="the adapter: of the last step, or of the best validation")
    patience: Positive | None = Field(
        default=None, description="stop after so many validations without a better one; null: never"
    )
    best_by: Literal["validation_loss"] | TriageMetric = Field(
        default="validation_loss",
        description="the best validation: of the lowest loss, or of the highest triage metric, for which calls are answered",
    )
    answered_dialogues: Positive = Field(
        default=32, description="validation calls that are answered for a triage metric, taken evenly"
    )
    canaries: int = Field(default=0, ge=0, description="invented secrets planted in training calls, to attack the model later")
    canary_calls: Literal["raw", "deidentified"] = Field(
        default="raw", description="the calls with a canary as they are, the worst case, or as prepare would have left them"
    )
    tracker: Literal["none", "mlflow", "wandb"] = Field(default="none", description="where metrics go besides TensorBoard")
    seed: int = Field(default=1, ge=0, description="seed of the adapter, the data order and dropout")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: all cores")

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.stop_grad_norm <= self.max_grad_norm:
            raise ValueError("stop_grad_norm must be above max_grad_norm, or clipping would never come to act")
        if self.max_steps == 0:
            raise ValueError("max_steps = 0 trains nothing; write -1 for as many as the epochs need")
        return self


class Range(Section):
    """What a field may be in a search: between two numbers, which may be the ends, or one of some choices."""

    low: int | float | None = Field(default=None, description="smallest value; two integers make the field an integer")
    high: int | float | None = Field(default=None, description="largest value")
    log: bool = Field(default=False, description="whether ratios count, as for learning rates, and not differences")
    choices: tuple[bool | int | float | str, ...] = Field(
        default=(), description="the values to choose from, instead of low and high"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.choices and (self.low, self.high) == (None, None):
            return self
        if self.choices or self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("a range is either low and high, low below high, or choices")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        return self


class Search(Section):
    """What `llmft search` tries; the lowest validation loss wins."""

    trials: Positive = Field(default=20, description="trainings to make, those that were stopped early included")
    ranges: dict[str, Range] = Field(default={}, description="dotted field, such as train.learning_rate, and its range")


class Prefer(Section):
    """What `llmft prefer` does after SFT, with the optimiser of `train`."""

    file: str | None = Field(default=None, description="JSONL of judged answers; see docs/training.md")
    method: Literal["dpo", "kto"] = Field(
        default="dpo", description="dpo learns from corrected answers (arXiv 2305.18290), kto from thumbs too (arXiv 2402.01306)"
    )
    beta: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="how firmly the adapter is held to what SFT has made of it"
    )
    learning_rate: Rate = Field(default=5e-6, description="peak learning rate")
    epochs: Annotated[float, Field(gt=0)] = Field(default=1.0, description="passes over the judged answers")
    batch_answers: Annotated[int, Field(ge=2)] = Field(default=4, description="answers, or pairs, in one forward pass")


class Evaluate(Section):
    """The measurement."""

    max_dialogues: Positive = Field(default=200, description="test dialogues, taken evenly from the test file")
    max_new_tokens: Positive = Field(default=320, description="longest answer in tokens; longer counts as a failure")
    batch_dialogues: Positive = Field(default=16, description="dialogues answered at once")


class Export(Section):
    """The files to make."""

    quants: tuple[Quant, ...] = Field(default=("F16", "Q8_0", "Q4_0", "Q4_K_M"), description="quants to write")
    context_tokens: Positive = Field(default=2048, description="context that the runtimes are asked to open, in tokens")
    profile: Literal["gpt4all", "llama.cpp"] | None = Field(
        default=None,
        description="gpt4all: Q4_0, and refused where the desktop cannot run it; llama.cpp: Q4_K_M and Q8_0; quants still decide",
    )
    calibration_dialogues: int = Field(
        default=64, ge=0, description="training dialogues that weigh the quants (importance matrix); 0 for none"
    )
    rounding: Literal["feedback", "nearest"] = Field(
        default="feedback",
        description="of Q4_0 where there are calibration dialogues: errors made good behind (GPTQ, QEP), or llama.cpp's own",
    )
    merge_base: Literal["original", "nf4", "better"] = Field(
        default="original",
        description="merge into the original weights, those that QLoRA saw, or where validation calls lose less",
    )
    mix: dict[str, str] = Field(
        default={}, description="pattern of tensor names: type, as ffn_down: Q6_K, or Q4_0:ffn_down: Q6_K in that quant alone"
    )
