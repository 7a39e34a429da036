"""No library may phone home: telemetry off, and the hub out of reach unless the user named a hub model.

Their chatter stays out of the terminal too: a newcomer should see what llmft says.

Call before the first import of transformers, trl or datasets; they read the environment once.
"""

from __future__ import annotations

import logging
import os
import warnings

TELEMETRY_OFF = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "WANDB_MODE": "disabled",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "COMET_MODE": "disabled",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def keep_private(*, hub_allowed: bool = False) -> None:
    """Switch telemetry off, and the hub too unless ``hub_allowed``."""
    offline = {"WANDB_MODE": "offline"} if os.environ.get("WANDB_MODE") == "offline" else {}  # as quiet, and the user's wish
    os.environ.update(TELEMETRY_OFF | offline)
    if not hub_allowed:
        os.environ.update(OFFLINE)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports optional kernels that nobody asked for
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|peft|torch")
