"""Folders that a stage leaves behind: their paths, whole files only, and a manifest of what made them.

runs/<name>/     recipe.yaml  manifest.json  adapter/  checkpoints/  metrics.jsonl  plots/  evaluation/
export/<name>/   <name>-<quant>.gguf  MODEL_CARD.md  manifest.json  verify.json  Modelfile  gpt4all.ini
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError, DiskError

SAMPLES, SAMPLE_BYTES = 64, 1 << 16  # of a weight file, spread evenly from its first byte to its last
NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
PARTIAL = ".partial"  # suffix of a file that is not whole yet
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "gguf", "llama-cpp-python", "gpt4all")


@dataclass(frozen=True)
class RunFolder:
    """Where each thing of one training run lies."""

    root: Path

    @property
    def recipe_path(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def manifest_path(self) -> Path:
        """What made this run."""
        return self.root / "manifest.json"

    @property
    def adapter_dir(self) -> Path:
        """The trained adapter with its tokenizer and chat template."""
        return self.root / "adapter"

    @property
    def checkpoints_dir(self) -> Path:
        """What ``--resume`` continues from."""
        return self.root / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a logged step."""
        return self.root / "metrics.jsonl"

    @property
    def canaries_path(self) -> Path:
        """What was planted in the training calls, if anything was."""
        return self.root / "canaries.json"

    @property
    def plots_dir(self) -> Path:
        """Pictures of the run."""
        return self.root / "plots"

    @property
    def evaluation_dir(self) -> Path:
        """Predictions and metrics."""
        return self.root / "evaluation"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a partial path beside ``path``; rename it to ``path`` only when the block ends well.

    The file is synced before the rename, so a kill or a power cut leaves the old file or the new
    one, never half of one. A full disk becomes a :class:`DiskError`.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise disk_error(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def disk_error(path: Path, error: OSError) -> Exception:
    """The sentence for a failed write; errors that are not about the disk pass unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"the disk that holds {path} is full; free space there or choose another folder, then rerun")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(f"{path} cannot be written: {error.strerror}; choose a folder that you may write to")
    if error.errno in NO_PLACE and _is_about(error.filename, path):
        others = {errno.EEXIST: "a file", errno.ENOTDIR: "a file", errno.EISDIR: "a folder"}
        reason = f"{others[error.errno]} stands in the way" if error.errno in others else error.strerror
        return DiskError(f"{path} cannot be made: {reason} ({error.filename}); choose another place")
    return error


def _is_about(name: Any, path: Path) -> bool:
    """Whether a failure names what lies at ``path``, beside it for a while, or above it, and not a file that was read."""
    return isinstance(name, str) and (name.startswith(str(path)) or Path(name) in path.parents)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, unless they are there; raises :class:`DiskError` where there can be none."""
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as a whole file."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, a whole file."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def require_space(folder: Path, size_bytes: int) -> None:
    """Raise :class:`DiskError` unless ``folder``'s disk has ``size_bytes`` free."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < size_bytes:
        raise DiskError(
            f"{folder} needs {size_bytes / 1e6:,.0f} MB and its disk has {free_bytes / 1e6:,.0f} MB free; "
            "free space there or choose another folder"
        )


def sha256(path: Path) -> str:
    """Hex digest of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def base_fingerprint(folder: Path) -> dict[str, str]:
    """What tells a base from another one of the same shapes: a digest of each weight file's size and samples of it.

    Hashing a base of 16 GB whole would take longer than exporting it.
    """
    return {path.name: _sampled_sha256(path) for path in sorted(folder.glob("*.safetensors"))}


def _sampled_sha256(path: Path) -> str:
    size_bytes = path.stat().st_size
    digest = hashlib.sha256(str(size_bytes).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, size_bytes - SAMPLE_BYTES) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def require_same_base(run: RunFolder, folder: Path) -> None:
    """Raise :class:`CheckpointError` for a base that changed since ``run`` was trained on it; older manifests do not say."""
    try:
        trained_on = json.loads(run.manifest_path.read_text("utf-8")).get("base_fingerprint")
    except (OSError, ValueError, AttributeError):
        return
    if trained_on and trained_on != base_fingerprint(folder):
        raise CheckpointError(
            f"{run.root} was trained on other weights than those that are in {folder} now, so its adapter does not fit them; "
            "train it again with: llmft sft, or give the base that it was trained on"
        )


def manifest(**facts: Any) -> dict[str, Any]:
    """What made an artefact: time, versions, git state, hardware, and the stage's own ``facts``."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version for name in ("llmft", *PACKAGES) if (version := _version(name))},
        "python": platform.python_version(),
        "git": _git_state(),
        "hardware": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
        **facts,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout that llmft runs from; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.SubprocessError):
        return None
