"""A run makes no outbound connection and switches telemetry off."""

from __future__ import annotations

import os
import subprocess
import sys

from llmft.privacy import OFFLINE, TELEMETRY_OFF, keep_private


def test_telemetry_is_off_and_the_hub_out_of_reach(monkeypatch):
    for name in (*TELEMETRY_OFF, *OFFLINE):
        monkeypatch.delenv(name, raising=False)
    keep_private()
    assert all(os.environ[name] == value for name, value in {**TELEMETRY_OFF, **OFFLINE}.items())


def test_a_tracker_that_was_told_to_stay_offline_stays_so(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    keep_private()
    assert os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    keep_private()
    assert os.environ["WANDB_MODE"] == "disabled"


def test_the_hub_is_reachable_only_when_the_user_names_a_hub_model(monkeypatch):
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    keep_private(hub_allowed=True)
    assert not any(name in os.environ for name in OFFLINE)
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


NO_CONNECTION = """
import socket, sys
def refuse(*arguments, **_):
    print("CONNECTION", arguments, file=sys.stderr)
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
from llmft.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_training_run_opens_no_connection(bases, prepared, tmp_path):
    from tiny import tiny_recipe

    recipe = tiny_recipe(tmp_path / "recipe.yaml", bases["llama"], "llama", prepared, max_steps=1, save_every=9, validate_every=9)
    command = [sys.executable, "-c", NO_CONNECTION, "sft", str(recipe)]
    environment = {name: value for name, value in os.environ.items() if name not in {**OFFLINE, **TELEMETRY_OFF}}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONNECTION" not in done.stderr
    assert (tmp_path / "runs/tiny/adapter/adapter_model.safetensors").is_file()
