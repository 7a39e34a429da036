"""Verbs that bring the model to its users."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmft.cli.arguments import DEMO, Verbs, recipe_arguments, verb_parser


def add_export(verbs: Verbs) -> None:
    """The verb ``export``."""
    verb = verb_parser(
        verbs,
        "export",
        "merge base and adapter and write GGUF files in one pass",
        "  llmft export recipes/demo-llama.yaml --quant Q4_0,Q4_K_M\n"
        "  llmft export --base DIR --adapter DIR --output model.gguf --quant Q4_0\n"
        "  llmft export --base DIR --adapter A --adapter B --weight 0.7 --weight 0.3 --output model.gguf --quant Q4_K_M,Q8_0",
    )
    recipe_arguments(verb)
    kinds = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S|M|L Q4_K_S|M Q5_K_S|M Q6_K IQ4_XS"
    verb.add_argument("--quant", help=f"comma-separated, among {kinds} (default: the recipe's)")
    verb.add_argument(
        "--profile", choices=("gpt4all", "llama.cpp"), help="quants and checks for one program (default: the recipe's)"
    )
    verb.add_argument("--base", help="base folder or hub id, for any PEFT adapter without a recipe")
    verb.add_argument(
        "--adapter", type=Path, action="append", default=[], help="adapter folder; none: the base alone; several: a sum"
    )
    verb.add_argument("--weight", type=float, action="append", default=[], help="weight of each adapter in the sum (default 1)")
    verb.add_argument("--output", type=Path, help="GGUF file to write, with --base; several quants: FILE-<quant>.gguf")
    verb.add_argument("--adapter-only", action="store_true", help="write the adapter alone, for llama.cpp's --lora")
    verb.add_argument("--into-nf4", action="store_true", help="merge into the weights that QLoRA saw, not the original ones")
    verb.add_argument(
        "--mix",
        action="append",
        default=[],
        metavar="PATTERN=TYPE",
        help="type of the tensors whose name matches, as ffn_down=Q6_K, or Q4_0:ffn_down=Q6_K in that quant alone",
    )
    verb.add_argument(
        "--imatrix", type=Path, help="importance matrix of llama-imatrix's (default: of the recipe's training calls)"
    )
    verb.add_argument(
        "--data", type=Path, metavar="DIR", help="prepared set whose training calls weigh the quants (default: the recipe's)"
    )
    verb.add_argument("--split-gb", type=float, metavar="GB", help="split a file after so many gigabytes of weights")
    verb.add_argument("--force", action="store_true", help="replace files that exist")

    verb.add_argument("--despite-gate", action="store_true", help="export an adapter although it failed `llmft gate`")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.verbs import export_command

        export_command(arguments)

    verb.set_defaults(run=run)


def add_verify(verbs: Verbs) -> None:
    """The verb ``verify``."""
    verb = verb_parser(
        verbs,
        "verify",
        "prove that a GGUF is the model that was trained: same text, tokens, logits and words, and an end",
        "  llmft verify recipes/demo-llama.yaml\n"
        "  llmft verify model.gguf --base DIR --adapter DIR --data data/prepared/demo\n"
        "  llmft verify model.gguf --base DIR --adapter A --adapter B --weight 0.7 --weight 0.3 --json",
    )
    source = f"a GGUF, or a recipe for all of its files (default {DEMO})"
    verb.add_argument("file", nargs="?", default=Path(DEMO), type=Path, help=source)
    verb.add_argument("--base", type=Path, help="base folder (default: the recipe's)")
    verb.add_argument(
        "--adapter", type=Path, action="append", default=[], help="adapter folder (default: the run's); several: a sum"
    )
    verb.add_argument("--weight", type=float, action="append", default=[], help="weight of each adapter in the sum (default 1)")
    verb.add_argument("--data", type=Path, metavar="DIR", help="prepared set to compare on (default: the recipe's)")
    verb.add_argument("--threads", type=int, help="CPU threads (default: one core stays free)")
    verb.add_argument("--mapped", action="store_true", help="keep the model's weights in their files, one layer awake at a time")
    verb.add_argument("--json", action="store_true", help="print verify.json instead of a table")

    def run(arguments: argparse.Namespace) -> int:
        from llmft.verbs import verify_command

        return verify_command(arguments)

    verb.set_defaults(run=run)


def add_install_gpt4all(verbs: Verbs) -> None:
    """The verb ``install-gpt4all``."""
    verb = verb_parser(
        verbs,
        "install-gpt4all",
        "copy a GGUF and its settings into GPT4All desktop, or take it out again",
        "  llmft install-gpt4all export/demo-llama/demo-llama-Q4_0.gguf\n"
        "  llmft install-gpt4all model.gguf --dry-run\n"
        "  llmft install-gpt4all model.gguf --undo",
    )
    verb.add_argument("file", type=Path, help="the GGUF")
    verb.add_argument("--models-dir", type=Path, help="another models folder than the desktop's own")
    verb.add_argument("--dry-run", action="store_true", help="say what would be done")
    verb.add_argument("--settings", type=Path, help="another settings file than the desktop's own")
    verb.add_argument("--force", action="store_true", help="replace a file of this name, which is kept as a backup")
    verb.add_argument("--undo", action="store_true", help="take the file and its settings out again, and put back what was there")
    verb.add_argument("--despite-gate", action="store_true", help="install it although it failed `llmft gate`")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.export.gpt4all import install, uninstall
        from llmft.gate_result import require_gate

        places = {"settings": arguments.settings, "dry_run": arguments.dry_run}
        if arguments.undo:
            print(uninstall(arguments.file.name, arguments.models_dir, **places))
        else:
            judged = require_gate(arguments.file, despite=arguments.despite_gate, folders=Path("runs").glob("*/evaluation"))
            print(install(arguments.file, arguments.models_dir, force=arguments.force, **places))
            if judged is not None and judged.beside_rules:
                print(
                    "note: it passed its gate beside the rules, which GPT4All does not run; its page tells what it misses alone"
                )

    verb.set_defaults(run=run)


def add_chat(verbs: Verbs) -> None:
    """The verb ``chat``."""
    verb = verb_parser(
        verbs,
        "chat",
        "chat with a GGUF in the terminal",
        '  llmft chat export/demo-llama/demo-llama-Q4_0.gguf\n  llmft chat model.gguf --once "J\'ai mal à la poitrine"',
    )
    verb.add_argument("file", type=Path, help="the GGUF")
    verb.add_argument("--once", metavar="TEXT", help="answer TEXT and leave: a smoke test")
    verb.add_argument("--system", help="system message (default: the recipes' own)")
    verb.add_argument("--threads", type=int, help="CPU threads (default: the physical cores)")

    def run(arguments: argparse.Namespace) -> int:
        from llmft.chat import chat

        return chat(arguments.file, once=arguments.once, system=arguments.system, threads=arguments.threads)

    verb.set_defaults(run=run)
