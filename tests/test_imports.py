"""Imports go one way, modules and functions stay small."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import llmft

ROOT = Path(llmft.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts)
STAGES = {"prepare", "train", "evaluate", "export", "serve"}
# Each imports only from the rows above it; a package also from itself.
LAYERS: tuple[set[str], ...] = (
    {"errors", "privacy", "strict_json", "proportion", "remembered"},
    {"run", "settings", "page"},
    {"recipe", "knowledge", "vault", "gate_result"},
    {"vocabulary"},
    {"dialogue"},
    {"deidentify", "protocol", "preference", "text_files"},
    {"prompt", "doctors", "canaries"},
    {"engine"},
    {*STAGES, "chat"},
    {"verbs", "data_verbs", "desk_verbs"},
    {"cli", "__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "llama_cpp", "gpt4all", "sklearn", "matplotlib"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def top(path: Path) -> str:
    """The part of llmft that a module belongs to: its package, or its own name."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of llmft that a module imports, at its head or inside a function."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"llmft.{alias.name}" for alias in node.names} if node.module == "llmft" else {node.module or ""}
    parts = {name.split(".")[1] for name in names if name.startswith("llmft.")}
    return {part for part in parts if part in RANK or (ROOT / part).exists() or (ROOT / f"{part}.py").exists()}


def test_every_module_has_its_place():
    assert len(MODULES) > 20
    assert {top(path) for path in MODULES} - {"__init__", "templates"} <= set(RANK)


def test_imports_go_one_way():
    wrong = [
        f"{path.relative_to(ROOT)} imports {part}"
        for path in MODULES
        for part in imported(path)
        if part != top(path) and RANK[part] >= RANK.get(top(path), -1)
    ]
    assert wrong == []


def test_the_walk_sees_imports():
    assert {"dialogue", "run", "errors", "prepare"} <= imported(ROOT / "prepare" / "stage.py")
    assert "prepare" in imported(ROOT / "data_verbs.py")  # inside a function


def test_heavy_libraries_are_imported_inside_functions():
    heads = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for node in tree(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in HEAVY
    ]
    assert heads == []


def test_modules_have_at_most_300_lines():
    long = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def test_functions_have_at_most_50_lines():
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > 50} == {}
