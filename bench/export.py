"""llmft export beside the standard path: peft merge, save_pretrained, convert_hf_to_gguf.py, llama_model_quantize.

    pip download llama-cpp-python==0.3.36 --no-deps --no-binary :all: --no-build-isolation   # its source has the converter
    tar xzf llama_cpp_python-0.3.36.tar.gz
    pip install --no-deps --target converter-needs sentencepiece && export PYTHONPATH=$PWD/converter-needs
    .venv/bin/python bench/export.py --converter llama_cpp_python-0.3.36/vendor/llama.cpp/convert_hf_to_gguf.py
    .venv/bin/python bench/export.py --memory                      # our peak memory at shapes of 3 and 70 billion weights
    .venv/bin/python bench/export.py --faithful recipes/demo-llama.yaml   # KL of Q4_0 with and without importance

A random LLaMA of 1.1 billion weights (22 layers, 2048 wide, bf16) with a rank-16 adapter on all linear layers. Each step is a
process of its own: wall and CPU seconds, peak resident memory with mapped pages, and the bytes of the files it wrote. Both paths
run in one go, on an otherwise idle machine. Writes bench/results/export.json and export.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LLMFT = str(Path(sys.executable).with_name("llmft"))
QUANTS = ("Q4_0", "Q4_K_M", "Q8_0", "F16")
FILE_TYPES = {"Q4_0": 2, "Q4_K_M": 15, "Q8_0": 7, "F16": 1}
SHAPES: dict[str, dict[str, int]] = {  # memory follows the widths, so two layers of the larger ones say all
    "1.1b": {"width": 2048, "inner": 5632, "heads": 32, "kv": 4, "vocabulary": 32000, "layers": 22},
    "3b": {"width": 3072, "inner": 8192, "heads": 24, "kv": 8, "vocabulary": 128256, "layers": 2},
    "70b": {"width": 8192, "inner": 28672, "heads": 64, "kv": 8, "vocabulary": 128256, "layers": 2},
}
MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, output = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output)
AutoTokenizer.from_pretrained(base).save_pretrained(output)
"""
QUANTIZE = """
import ctypes, sys, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype, parameters.nthread = int(sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(parameters)))
"""


def measure(command: Sequence[str], *written: Path) -> dict[str, float]:
    """Run one step; seconds, peak memory, and the bytes of what it ``written``."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{said.decode(errors='replace')[-2000:]}")
    size = sum(
        file.stat().st_size for path in written for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()
    )
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "written_mb": round(size / 1e6, 1),
    }


def make_tokenizer(folder: Path, size: int) -> None:
    """A SentencePiece-style tokenizer of ``size`` tokens, which both paths can read."""
    from transformers import LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"<filler_{number}>" for number in range(size - len(pieces))]
    tokenizer = LlamaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("a", "b")][:0])
    tokenizer.save_pretrained(folder)


def make_base(folder: Path, shape: dict[str, int], *, sparse: bool = False) -> Path:
    """A base of ``shape``; ``sparse`` weights are holes in a file, which take no disk."""
    import numpy as np

    folder.mkdir(parents=True)
    width, head = shape["width"], shape["width"] // shape["heads"]
    layer = {
        **{
            f"self_attn.{part}_proj": (rows, width)
            for part, rows in (("q", width), ("k", shape["kv"] * head), ("v", shape["kv"] * head))
        },
        "self_attn.o_proj": (width, width),
        **{f"mlp.{part}_proj": (shape["inner"], width) for part in ("gate", "up")},
        "mlp.down_proj": (width, shape["inner"]),
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (width,)),
    }
    shapes = {"model.embed_tokens": (shape["vocabulary"], width), "model.norm": (width,), "lm_head": (shape["vocabulary"], width)}
    shapes |= {f"model.layers.{number}.{name}": size for number in range(shape["layers"]) for name, size in layer.items()}
    place, header = 0, {"__metadata__": {"format": "pt"}}
    for name, size in shapes.items():
        end = place + 2 * math.prod(size)
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": list(size), "data_offsets": [place, end]}  # type: ignore[dict-item]
        place = end
    text = json.dumps(header).encode()
    draw = np.random.default_rng(1)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if sparse:
            file.truncate(8 + len(text) + place)
        for size in [] if sparse else shapes.values():
            for _ in range(0, math.prod(size), 1 << 24):
                count = min(1 << 24, math.prod(size))
                values = draw.standard_normal(count, np.float32) * (0.02 if len(size) > 1 else 0.0) + (0 if len(size) > 1 else 1)
                file.write((values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()[: 2 * math.prod(size)])
        file.truncate(8 + len(text) + place)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": shape["inner"],
    }
    config |= {"num_attention_heads": shape["heads"], "num_key_value_heads": shape["kv"], "num_hidden_layers": shape["layers"]}
    config |= {"vocab_size": shape["vocabulary"], "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16", "rope_theta": 10000.0}))
    make_tokenizer(folder, shape["vocabulary"])
    return folder


def make_adapter(folder: Path, base: Path) -> Path:
    """A random rank-16 adapter on all linear layers of ``base``."""
    import numpy as np
    from safetensors.numpy import save_file

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from llmft.export.base.checkpoint import read_header

    draw, tensors = np.random.default_rng(2), {}
    for name, stored in read_header(base / "model.safetensors").items():
        if len(stored.shape) != 2 or not name.startswith("model.layers."):
            continue
        module = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = draw.standard_normal((16, stored.shape[1]), np.float32) * 0.02
        tensors[f"{module}.lora_B.weight"] = draw.standard_normal((stored.shape[0], 16), np.float32) * 0.02
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


def standard_path(base: Path, adapter: Path, work: Path, converter: Path, quants: Sequence[str], threads: int) -> dict[str, Any]:
    """The steps that others take, the first two once for all quants."""
    merged, whole = work / "merged", work / "whole.gguf"
    steps: dict[str, Any] = {
        "merge and save": measure([sys.executable, "-c", MERGE, str(base), str(adapter), str(merged)], merged)
    }
    convert = [sys.executable, str(converter), str(merged), "--outtype", "bf16", "--outfile", str(whole)]
    steps["convert"] = measure(convert, whole)
    shutil.rmtree(merged)
    for quant in quants:
        path = work / f"standard-{quant}.gguf"
        command = [sys.executable, "-c", QUANTIZE, str(whole), str(path), str(FILE_TYPES[quant]), str(threads)]
        steps[quant] = measure(command, path)
        path.unlink()
    whole.unlink()
    return steps


def our_path(base: Path, adapter: Path, work: Path, quants: Sequence[str]) -> dict[str, float]:
    """One command."""
    output = work / "ours.gguf"
    files = [output] if len(quants) == 1 else [work / f"ours-{quant}.gguf" for quant in quants]
    command = [
        LLMFT,
        "export",
        "--base",
        str(base),
        "--adapter",
        str(adapter),
        "--output",
        str(output),
        "--quant",
        ",".join(quants),
    ]
    found = measure([*command, "--force"], *files)
    for path in files:
        path.unlink()
    return found


def compare(work: Path, converter: Path, layers: int) -> dict[str, Any]:
    """Both paths, side by side."""
    base = make_base(work / "base", {**SHAPES["1.1b"], "layers": layers})
    adapter = make_adapter(work / "adapter", base)
    threads = os.cpu_count() or 1
    ours: dict[str, Any] = {quant: our_path(base, adapter, work, [quant]) for quant in ("Q4_0", "Q4_K_M")}
    ours["Q4_0 + Q8_0 + F16"] = our_path(base, adapter, work, ["Q4_0", "Q8_0", "F16"])
    standard = standard_path(base, adapter, work, converter, QUANTS, threads)
    common = standard["merge and save"]["seconds"] + standard["convert"]["seconds"]
    sums = {quant: common + standard[quant]["seconds"] for quant in QUANTS}
    several = sum(sums[quant] for quant in ("Q4_0", "Q8_0", "F16"))
    ratios = {quant: round(sums[quant] / ours[quant]["seconds"], 2) for quant in ("Q4_0", "Q4_K_M")}
    ratios["Q4_0 + Q8_0 + F16"] = round(several / ours["Q4_0 + Q8_0 + F16"]["seconds"], 2)
    return {"layers": layers, "llmft": ours, "standard": standard, "times faster": ratios}


def memory(work: Path) -> dict[str, Any]:
    """Our peak memory at the widths of larger models."""
    found = {}
    for name in ("3b", "70b"):
        base = make_base(work / name, SHAPES[name], sparse=True)
        found[name] = our_path(base, make_adapter(work / f"{name}-adapter", base), work, ["Q4_0"])
        shutil.rmtree(base)
    return found


def faithful(recipe_path: Path, work: Path) -> dict[str, Any]:
    """Mean KL against the unmerged adapter on test calls: Q4_0 with importance, and as the standard path makes it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from llmft.export.file.imatrix import read_imatrix
    from llmft.export.verify import verify
    from llmft.export.writer import Options, export_bare
    from llmft.recipe import load_recipe
    from llmft.verbs import _test_chats, base_folder, trained_adapter

    recipe = load_recipe(recipe_path)
    base, adapter, chats = base_folder(recipe), trained_adapter(recipe), _test_chats(recipe)
    means = read_imatrix(recipe.export_dir / "imatrix.gguf")
    found = {}
    for title, importance in (("with importance", means), ("plain", {})):
        path = export_bare(base, [adapter], work / f"{title}.gguf", ["Q4_0"], options=Options(importance=importance))[0]
        checks = {check.name: check.measured for check in verify(path, base, adapter, chats, require_stop=False).checks}
        found[title] = {"kl": checks["logits, KL"], "top1": checks["logits, top-1"]}
    found["ratio"] = found["with importance"]["kl"] / found["plain"]["kl"]
    return {"recipe": str(recipe_path), "calls": len(chats), **found}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    versions = {package: metadata.version(package) for package in ("torch", "transformers", "peft", "gguf", "llama-cpp-python")}
    load = [round(load, 2) for load in os.getloadavg()]
    facts: dict[str, object] = {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}
    return {**facts, "load_before": load, "date": datetime.now(UTC).date().isoformat()}


def plot(result: dict[str, Any], path: Path) -> None:
    """Wall seconds of both paths as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3))
    standard = result["standard"]
    for row, quant in enumerate(("Q4_0", "Q4_K_M")):
        left = 0.0
        for step, colour in (("merge and save", "#888"), ("convert", "#bbb"), (quant, "#555")):
            axes.barh(
                2 * row,
                standard[step]["seconds"],
                left=left,
                color=colour,
                label=None if row else step.replace(quant, "quantise"),
            )
            left += standard[step]["seconds"]
        axes.barh(2 * row + 0.85, result["llmft"][quant]["seconds"], color="#c33", label=None if row else "llmft export")
    axes.set_yticks([0, 0.85, 2, 2.85], ["standard Q4_0", "llmft Q4_0", "standard Q4_K_M", "llmft Q4_K_M"])
    axes.set_xlabel("seconds")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=Path, help="convert_hf_to_gguf.py of llama.cpp")
    parser.add_argument("--memory", action="store_true", help="peak memory at shapes of 3 and 70 billion weights")
    parser.add_argument(
        "--faithful", type=Path, metavar="RECIPE", help="KL of Q4_0 with and without importance, of a trained run"
    )
    parser.add_argument("--layers", type=int, default=SHAPES["1.1b"]["layers"], help="fewer layers for a trial")
    parser.add_argument("--output", type=Path, default=RESULTS / "export.json", help="where the figures go")
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    result["machine"] = machine()
    with tempfile.TemporaryDirectory(prefix="llmft-bench-") as work:
        if arguments.converter is not None:
            result |= compare(Path(work), arguments.converter, arguments.layers)
            plot(result, arguments.output.with_suffix(".png"))
        if arguments.memory:
            result["memory"] = memory(Path(work))
        if arguments.faithful is not None:
            result["faithful"] = faithful(arguments.faithful, Path(work))
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
