"""``accelerate launch train.py --config recipes/gptj-6b-qlora.yaml``: the same as ``llmft sft --config …``."""

import sys

from llmft.cli import main

if __name__ == "__main__":
    sys.exit(main(["sft", *sys.argv[1:]]))
