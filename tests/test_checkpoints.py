"""Checkpoints: only whole ones count, the last few and the best stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llmft.train.checkpoints import (
    WHOLE,
    best_checkpoint,
    is_done,
    last_checkpoint,
    mark_whole,
    remove_halves,
    remove_old,
    validations_without_gain,
)


def checkpoint(folder: Path, step: int, *, whole: bool = True, best: int | None = None, losses: tuple[float, ...] = ()) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    log = [{"step": number, "eval_loss": loss} for number, loss in enumerate(losses)]
    (path / "trainer_state.json").write_text(json.dumps({"best_global_step": best, "log_history": [{"loss": 9.0}, *log]}))
    if whole:
        mark_whole(path)
    return path


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def test_a_half_written_checkpoint_is_passed_over_and_removed(tmp_path):
    for step, whole in ((2, True), (10, True), (12, False)):
        checkpoint(tmp_path, step, whole=whole)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    remove_halves(tmp_path)
    assert steps(tmp_path) == [2, 10]
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("keep", "best", "left"), [(1, None, [9, 40]), (2, 2, [2, 9, 30, 40]), (2, 40, [9, 30, 40]), (5, 2, [2, 4, 9, 30, 40])]
)
def test_the_last_ones_and_the_best_stay(tmp_path, keep, best, left):
    for step in (2, 4, 30, 40):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 9, whole=False)  # not whole, so not ours to remove here
    remove_old(tmp_path, keep, best)
    assert steps(tmp_path) == left


def test_a_kill_while_removing_leaves_no_checkpoint_that_looks_whole(tmp_path, monkeypatch):
    path = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_old(tmp_path, 1, None)
    assert path.is_dir() and not (path / WHOLE).exists()


def test_the_best_is_the_one_that_the_last_one_names(tmp_path):
    checkpoint(tmp_path, 2, best=2)
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    checkpoint(tmp_path, 4, best=2)
    assert best_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    checkpoint(tmp_path, 6, best=None)
    assert best_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("losses", "waited"), [((), 0), ((3.0,), 0), ((3.0, 2.0), 0), ((3.0, 2.0, 2.0, 2.5), 2), ((1.0, 2.0, 3.0, 0.5), 0)]
)
def test_validations_without_gain_are_counted_from_the_lowest_loss(losses, waited):
    assert validations_without_gain([{"loss": 1.0}, *({"eval_loss": loss} for loss in losses)]) == waited


def test_a_run_is_done_when_its_steps_or_its_patience_are(tmp_path):
    path = checkpoint(tmp_path, 6, losses=(3.0, 2.0, 2.5, 2.6))
    assert not is_done(path, 8, None) and not is_done(path, 8, 3)
    assert is_done(path, 8, 2) and is_done(path, 6, None)
