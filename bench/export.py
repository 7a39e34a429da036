"""llmft export beside the standard path: peft merge, save_pretrained, convert_hf_to_gguf.py, llama_model_quantize.

    .venv/bin/python bench/export.py                # everything, in about 6 minutes on two idle cores; 12 GB of disk
    .venv/bin/python bench/export.py --layers 2     # a trial; results go to a file of its own
    .venv/bin/python bench/export.py --trained DIR  # the trained demonstrations of another checkout

A random LLaMA of 1.1 billion weights (22 layers, 2048 wide, bf16) with a rank-16 adapter on all linear layers. Each step is a
process of its own: wall and CPU seconds, peak resident memory with mapped pages, bytes of its files and bytes that it wrote.
Then our memory at the shapes of 3 and 70 billion weights, and the KL of the trained demonstrations' Q4_0 against the standard
path's. The converter is taken from llama-cpp-python's source distribution, which pip fetches unless --converter names it; it
needs the package sentencepiece. Each case is kept as soon as it is measured, and a second run goes on from there; --again starts
over. A case that fails is told and left out. Writes bench/results/export.json and docs/images/export.png.
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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
WORK = Path(tempfile.gettempdir()) / "llmft-bench-export"  # models and the converter, removed at the end
RECIPES = ("demo-llama", "demo-gptj")  # whose trained runs are measured, where they are there
SEVERAL = ("Q4_0", "Q8_0", "F16")
BARS = {"Q4_0": 7.0, "Q4_K_M": 1.7, "Q4_0 + Q8_0 + F16": 4.0}  # times faster
MOST_MB, MOST_KL, MOST_VERIFY_S = 400, 0.7, 60  # the other bars: memory, KL over the standard path's, seconds
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


# a process begins with the peak of the one that made it, so a small one makes it and says what it used
LAUNCH = """
import json, os, sys, time
report, *command = sys.argv[1:]
null = os.open(os.devnull, os.O_RDWR)
streams = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
started = time.perf_counter()
child = os.posix_spawn(command[0], command, os.environ, file_actions=streams)
_, status, used = os.wait4(child, 0)
found = [time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss, used.ru_oublock]
with open(report, "w") as file:
    json.dump(found, file)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


class Failed(Exception):
    """A step ended with an error; the message is what it said last."""


def measure(command: Sequence[str], *written: Path, folder: Path | None = None) -> dict[str, float]:
    """Run one step in ``folder``; seconds, peak memory of it and its children, and the bytes of what it ``written``."""
    report = WORK / "used.json"
    launcher = [sys.executable, "-S", "-c", LAUNCH, str(report), *command]
    done = subprocess.run(launcher, cwd=folder, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:4])} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    seconds, cpu_seconds, peak_kb, blocks = json.loads(report.read_text())
    size = sum(
        file.stat().st_size for path in written for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()
    )
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_mb": round(peak_kb / 1024),
        "files_mb": round(size / 1e6, 1),
        "written_mb": round(blocks * 512 / 1e6, 1),
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
            left = math.prod(size)
            while left:
                count = min(1 << 24, left)
                values = (
                    draw.standard_normal(count, np.float32) * np.float32(0.02) if len(size) > 1 else np.ones(count, np.float32)
                )
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= count
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

    from llmft.export.base.checkpoint import read_header

    draw, tensors = np.random.default_rng(2), {}
    for name, stored in read_header(base / "model.safetensors").items():
        if len(stored.shape) != 2 or not name.startswith("model.layers."):
            continue
        module = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = draw.standard_normal((16, stored.shape[1]), np.float32) * 0.02
        tensors[f"{module}.lora_B.weight"] = draw.standard_normal((stored.shape[0], 16), np.float32) * 0.02
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


def our_path(base: Path, adapter: Path, quants: Sequence[str]) -> dict[str, float]:
    """One command."""
    output = WORK / "ours.gguf"
    files = [output] if len(quants) == 1 else [WORK / f"ours-{quant}.gguf" for quant in quants]
    command = [LLMFT, "export", "--base", str(base), "--adapter", str(adapter)]
    found = measure([*command, "--output", str(output), "--quant", ",".join(quants), "--force"], *files)
    for path in files:
        path.unlink()
    return found


def merged(base: Path, adapter: Path) -> dict[str, float]:
    """The standard path's first step."""
    folder = WORK / "merged"
    return measure([sys.executable, "-c", MERGE, str(base), str(adapter), str(folder)], folder)


def converted(converter: Path) -> dict[str, float]:
    """Its second step, with the merged checkpoint as it needs it."""
    whole = WORK / "whole.gguf"
    command = [sys.executable, str(converter), str(WORK / "merged"), "--outtype", "bf16", "--outfile", str(whole)]
    return measure(command, whole)


def quantized(quant: str) -> dict[str, float]:
    """Its last step."""
    path = WORK / f"standard-{quant}.gguf"
    command = [sys.executable, "-c", QUANTIZE, str(WORK / "whole.gguf"), str(path), str(FILE_TYPES[quant]), str(os.cpu_count())]
    found = measure(command, path)
    path.unlink()
    return found


def find_converter(given: Path | None) -> Path:
    """convert_hf_to_gguf.py of the llama.cpp that llama-cpp-python was built from."""
    if given is not None:
        return given
    name = f"llama-cpp-python=={metadata.version('llama-cpp-python')}"
    found = list(WORK.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
    if not found:
        pip = [sys.executable, "-m", "pip", "download", name, "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(WORK)]
        subprocess.run(pip, check=True)
        subprocess.run(["tar", "xzf", *map(str, WORK.glob("llama_cpp_python-*.tar.gz"))], cwd=WORK, check=True)
        found = list(WORK.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
    return found[0]


def shape_of(name: str, layers: int, *, sparse: bool = False) -> tuple[Path, Path]:
    """Base and adapter of a shape, made once."""
    folder = WORK / f"{name}-{layers}"
    base, adapter = folder / "base", folder / "adapter"
    if not (adapter / "adapter_config.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        make_base(base, {**SHAPES[name], "layers": layers}, sparse=sparse)
        make_adapter(adapter, base)
    return base, adapter


def memory(name: str) -> dict[str, float]:
    """Our time and peak memory at the widths of a larger model, two layers of it."""
    base, adapter = shape_of(name, SHAPES[name]["layers"], sparse=True)
    found = our_path(base, adapter, ["Q4_0"])
    shutil.rmtree(base.parent)
    return found


def faithful(name: str, trained: Path) -> dict[str, Any]:
    """KL against the unmerged adapter on test calls: Q4_0 as the recipe makes it, and as the standard path does.

    Runs beside links to the data and runs of ``trained``, so that the export that lies there stays as it is.
    """
    from llmft.export.file.imatrix import read_imatrix
    from llmft.export.file.known import Given
    from llmft.export.stage import Wishes, export_run
    from llmft.export.verify import Limits, verify
    from llmft.export.writer import Options, export_bare
    from llmft.recipe import load_recipe
    from llmft.verbs import base_folder, trained_adapter, verified_texts

    for linked in ("data", "runs"):
        (WORK / linked).unlink(missing_ok=True)
        (WORK / linked).symlink_to(trained.resolve() / linked)
    os.chdir(WORK)
    recipe = load_recipe(trained.resolve() / "recipes" / f"{name}.yaml", [f"name={name}"])
    if not recipe.run.adapter_dir.is_dir():
        raise Failed(f"{name} is not trained there: llmft sft recipes/{name}.yaml")
    base, adapter = base_folder(recipe), trained_adapter(recipe)
    texts = verified_texts(Path(recipe.data.folder), recipe.data.system)
    (ours,) = export_run(recipe, base, adapter, Wishes(("Q4_0",), force=True))
    means = read_imatrix(recipe.export_dir / "imatrix.gguf")
    files = {"llmft": ours}
    for title, importance in (("importance alone", means), ("standard", {})):
        path = WORK / f"{name}-{title}.gguf"
        files[title] = export_bare(base, [adapter], path, ["Q4_0"], options=Options(known=Given(importance), force=True))[0]
    found: dict[str, Any] = {}
    for title, path in files.items():
        report = verify(path, base, [adapter], texts, limits=Limits(require_stop=False))
        measured = {check.name: check.measured for check in report.checks}
        found[title] = {"kl": measured["logits, KL"], "top1": measured["logits, top-1"], "perplexity": measured.get("perplexity")}
        found[title]["size_bytes"] = path.stat().st_size
    return {**found, "ratio": round(found["llmft"]["kl"] / found["standard"]["kl"], 3)}


def verified(name: str, trained: Path) -> dict[str, float]:
    """``llmft verify`` of a whole demonstration, all its files."""
    if not list((trained / "export" / name).glob(f"{name}-*.gguf")):
        raise Failed(f"{name} is not exported there: llmft export recipes/{name}.yaml")
    return measure([LLMFT, "verify", f"recipes/{name}.yaml"], folder=trained)


def cases(layers: int, converter: Path | None, trained: Path) -> dict[str, Callable[[], Any]]:
    """Everything that is measured, in order; the standard path's steps build on each other."""
    found: dict[str, Callable[[], Any]] = {}
    for quants in (("Q4_0",), ("Q4_K_M",), SEVERAL):
        found[f"llmft {' + '.join(quants)}"] = lambda quants=quants: our_path(*shape_of("1.1b", layers), quants)  # type: ignore[misc]
    found["standard merge and save"] = lambda: merged(*shape_of("1.1b", layers))
    found["standard convert"] = lambda: converted(find_converter(converter))
    for quant in QUANTS:
        found[f"standard {quant}"] = lambda quant=quant: quantized(quant)  # type: ignore[misc]
    for name in ("3b", "70b"):
        found[f"memory {name}"] = lambda name=name: memory(name)  # type: ignore[misc]
    for name in RECIPES:
        found[f"faithful {name}"] = lambda name=name: faithful(name, trained)  # type: ignore[misc]
        found[f"verify {name}"] = lambda name=name: verified(name, trained)  # type: ignore[misc]
    return found


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """Each figure beside its bar: how many times faster, the peaks of memory, what Q4_0 loses, how long verify takes."""
    seconds = {name: case["seconds"] for name, case in measured.items() if case and "seconds" in case}
    common = seconds["standard merge and save"] + seconds["standard convert"]
    whole = {quant: common + seconds[f"standard {quant}"] for quant in QUANTS}
    together = " + ".join(SEVERAL)
    found: dict[str, Any] = {}
    for title, standard in (*((quant, whole[quant]) for quant in ("Q4_0", "Q4_K_M")), (together, sum(whole[q] for q in SEVERAL))):
        found[title] = {"times faster": round(standard / seconds[f"llmft {title}"], 2), "bar": BARS[title]}
    merged_once = common + sum(seconds[f"standard {quant}"] for quant in SEVERAL)
    found[together]["times faster than merging and converting once"] = round(merged_once / seconds[f"llmft {together}"], 2)
    ours = [name for name in measured if name.startswith(("llmft", "memory"))]
    found["peak MB"] = {**{name: measured[name]["peak_mb"] for name in ours}, "bar": MOST_MB}
    found["written over the files' size"] = {
        name: round(measured[name]["written_mb"] / measured[name]["files_mb"], 3) for name in ours
    }
    found["KL over the standard path's"] = {
        **{name: measured[f"faithful {name}"]["ratio"] for name in RECIPES if f"faithful {name}" in measured},
        "bar": MOST_KL,
    }
    found["verify, seconds"] = {
        **{name: seconds[f"verify {name}"] for name in RECIPES if f"verify {name}" in measured},
        "bar": MOST_VERIFY_S,
    }
    return found


def machine() -> dict[str, object]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    versions = {package: metadata.version(package) for package in ("torch", "transformers", "peft", "gguf", "llama-cpp-python")}
    load = [round(load, 2) for load in os.getloadavg()]
    facts: dict[str, object] = {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}
    return {**facts, "load_before": load, "date": datetime.now(UTC).date().isoformat()}


def plot(measured: dict[str, Any], path: Path) -> None:
    """Wall seconds of both paths as bars, and their peak memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, peaks) = pyplot.subplots(1, 2, figsize=(11, 3), width_ratios=(3, 2))
    labels = []
    for row, quant in enumerate(("Q4_0", "Q4_K_M")):
        steps, left = ("merge and save", "convert", quant), 0.0
        for step, colour in zip(steps, ("#888", "#bbb", "#555"), strict=True):
            seconds = measured[f"standard {step}"]["seconds"]
            times.barh(2 * row, seconds, left=left, color=colour, label=None if row else step.replace(quant, "quantise"))
            left += seconds
        times.barh(2 * row + 0.85, measured[f"llmft {quant}"]["seconds"], color="#c33", label=None if row else "llmft export")
        labels += [f"standard {quant}", f"llmft {quant}"]
    bars = {
        "standard, 1.1B": max(case["peak_mb"] for name, case in measured.items() if name.startswith("standard")),
        "llmft, 1.1B": max(case["peak_mb"] for name, case in measured.items() if name.startswith("llmft")),
        **{f"llmft, {name.upper()}'s widths": measured[f"memory {name}"]["peak_mb"] for name in ("3b", "70b")},
    }
    drawn = peaks.barh(list(bars), list(bars.values()), color=["#888", *3 * ["#c33"]])
    peaks.bar_label(drawn, padding=3, fontsize=8)
    peaks.axvline(MOST_MB, color="#c33", linewidth=0.8, linestyle=":")
    peaks.margins(x=0.15)
    times.set_yticks([0, 0.85, 2, 2.85], labels)
    times.set_xlabel("seconds")
    peaks.set_xlabel("peak resident memory, MB")
    times.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def measure_all(every: dict[str, Callable[[], Any]], path: Path, result: dict[str, Any], layers: int) -> dict[str, Any]:
    """Measure what is not yet in ``result``, and keep each case at once; the standard path's steps leave files for the next."""
    measured: dict[str, Any] = result.get("cases", {})
    broken = False
    for name, case in every.items():
        is_standard = name.startswith("standard")
        if measured.get(name) and not (is_standard and "standard F16" not in measured) or (is_standard and broken):
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            measured[name] = case()
        except (Failed, LlmftError) as error:
            print(error, file=sys.stderr)
            broken |= is_standard
            continue
        result = {"machine": machine(), "layers": layers, "cases": measured}
        path.write_text(json.dumps(result, indent=2) + "\n")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=Path, help="convert_hf_to_gguf.py of llama.cpp (default: fetched by pip)")
    parser.add_argument("--layers", type=int, default=SHAPES["1.1b"]["layers"], help="fewer layers for a trial")
    parser.add_argument("--trained", type=Path, default=ROOT, metavar="DIR", help="checkout with trained demonstrations")
    parser.add_argument("--only", default="", metavar="BEGINNING", help="cases whose name begins so, such as memory")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    arguments = parser.parse_args()
    is_trial = arguments.layers != SHAPES["1.1b"]["layers"]
    path = WORK / "trial.json" if is_trial else RESULTS / "export.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() and not arguments.again else {}
    WORK.mkdir(exist_ok=True)
    converter = None if arguments.converter is None else arguments.converter.resolve()
    every = cases(arguments.layers, converter, arguments.trained.resolve())
    wanted = {name: case for name, case in every.items() if name.startswith(arguments.only)}
    result = measure_all(wanted, path, result, arguments.layers)
    measured = result.get("cases", {})
    if missing := sorted(set(every) - set(measured)):
        print(f"not measured: {', '.join(missing)}", file=sys.stderr)
        return int(not set(wanted) <= set(measured))
    result["summary"] = summary(measured)
    path.write_text(json.dumps(result, indent=2) + "\n")
    plot(measured, WORK / "trial.png" if is_trial else ROOT / "docs" / "images" / "export.png")
    print(json.dumps({"summary": result["summary"], "cases": measured}, indent=2))
    if not is_trial:
        shutil.rmtree(WORK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
