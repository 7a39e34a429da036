"""A model comes into service by the gate alone, and goes back in one step; the verbs do what the functions do."""

from __future__ import annotations

import shutil

import pytest
from tiny_store import judged, quick_folder, tiny_answer, tiny_call, write_roster

from llmft.cli import main
from llmft.errors import LlmftError, NotStoredError, StoreError
from llmft.gate_result import Judged, write_gate
from llmft.run import sha256
from llmft.serve.store.database import open_store
from llmft.serve.store.feedback import give_feedback
from llmft.serve.store.journal import recent_records
from llmft.serve.store.keys import check_key
from llmft.serve.store.models import active_model, list_models, roll_back, use_model


@pytest.fixture(scope="module")
def ggufs(tmp_path_factory):
    """Two files that read as GGUF."""
    import gguf
    import numpy as np

    folder = tmp_path_factory.mktemp("ggufs")
    paths = [folder / "one.gguf", folder / "two.gguf"]
    for number, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tensor("token_embd.weight", np.full((4, 32), number, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def verdicts(*paths, passed=True):
    short = () if passed else ("emergency_recall 0.90 is below 0.95",)
    return {path.name: Judged(passed, sha256(path), short) for path in paths}


@pytest.fixture
def files(ggufs, tmp_path):
    """The files in an export folder, with the gate's verdict beside them."""
    export = tmp_path / "export" / "demo"
    export.mkdir(parents=True)
    paths = [shutil.copy(path, export / path.name) for path in ggufs]
    write_gate([export], "0" * 64, verdicts(*paths))
    return paths


@pytest.fixture
def desk(monkeypatch):
    with quick_folder() as folder:
        monkeypatch.setenv("LLMFT_VAULT", str(folder / "vault"))
        opened = open_store(None, folder / "desk")
        yield opened
        opened.close()


def test_models_go_and_come_back(desk, files):
    one, two = files
    assert active_model(desk) is None
    first = use_model(desk, one, "test")
    second = use_model(desk, two, "test")
    assert (first.sha256, first.gate, first.path) == (sha256(one), "passed", one) and active_model(desk) == second
    back = roll_back(desk, "test")
    assert (back.sha256, back.back_to) == (first.sha256, first.number) and active_model(desk) == first
    with pytest.raises(NotStoredError, match="before this one"):
        roll_back(desk, "test")
    third = use_model(desk, two, "test")
    assert active_model(desk) == third and roll_back(desk, "test").sha256 == first.sha256
    assert len(list_models(desk)) == 5
    told = [record.facts["model"] for record in recent_records(desk, "model")]
    assert told == [first.sha256, second.sha256, first.sha256, second.sha256, first.sha256]


def test_a_file_that_is_gone_or_changed_does_not_come_back(desk, files):
    one, two = files
    use_model(desk, one, "test")
    second = use_model(desk, two, "test")
    one.write_bytes(two.read_bytes())
    with pytest.raises(StoreError, match="gone or was changed"):
        roll_back(desk, "test")
    assert active_model(desk) == second


def test_only_what_passed_the_gate_comes_into_service(desk, files, tmp_path):
    one, two = files
    (tmp_path / "elsewhere").mkdir()
    alone = shutil.copy(one, tmp_path / one.name)
    write_gate([tmp_path / "elsewhere"], "0" * 64, verdicts(two))
    for gate_dir in (None, tmp_path / "elsewhere"):  # judged nowhere; another file was judged
        with pytest.raises(StoreError, match="not judged by the gate.*--despite-gate"):
            use_model(desk, alone, "test", gate_dir=gate_dir)
    write_gate([tmp_path / "elsewhere"], "0" * 64, verdicts(one, passed=False))
    with pytest.raises(StoreError, match="failed its gate .emergency_recall 0.90 is below 0.95"):
        use_model(desk, alone, "test", gate_dir=tmp_path / "elsewhere")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(LlmftError, match="text.gguf"):
        use_model(desk, tmp_path / "text.gguf", "test", despite_gate=True)
    assert list_models(desk) == []
    taken = use_model(desk, alone, "test", despite_gate=True)
    assert taken.gate == recent_records(desk, "model")[0].facts["gate"] == "overridden"


def run(capsys, *words):
    code = main(list(map(str, words)))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verbs(desk, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LLMFT_DESK", str(desk.folder))
    code, key, hint = run(capsys, "keys", "add", "--role", "operator", "--name", "desk-3")
    who = check_key(desk, key.strip())
    assert code == 0 and who is not None and who.name == "desk-3" and "shown once" in hint
    assert "in force" in run(capsys, "keys", "list")[1]
    assert run(capsys, "keys", "revoke", who.key_id)[0] == 0 and "revoked" in run(capsys, "keys", "list")[1]
    assert run(capsys, "keys", "revoke", "nobody")[2].startswith("llmft: no key has the id 'nobody'")

    roster = write_roster(tmp_path / "roster.csv")
    assert "2 doctors, 6 slots" in run(capsys, "roster", "import", roster)[1]
    assert run(capsys, "roster", "slots", "--specialty", "Cardiology", "--limit", "2")[1].count("Dr Exemple") == 2
    assert "is no specialty" in run(capsys, "roster", "slots", "--specialty", "x")[2]
    assert "no free time" in run(capsys, "roster", "slots", "--age", "3")[1]

    assert "in service" in run(capsys, "models", "use", files[0])[1]
    assert "in service" in run(capsys, "models", "use", files[1])[1]
    assert "in service again" in run(capsys, "models", "back")[1]
    assert [line[0] for line in run(capsys, "models", "list")[1].splitlines()] == [" ", " ", "*"]

    call = tiny_call(desk, subject="P-9")
    give_feedback(desk, judged(tiny_answer(desk, call)), "op-1")
    assert "1 calls" in run(capsys, "feedback", "export", "--output", tmp_path / "feedback")[1]
    code, said, _ = run(capsys, "journal", "verify")
    assert code == 0 and "2 contents are as recorded" in said
    anchor = said.split()[-1]
    gone = run(capsys, "journal", "erase", "--subject", "P-9")[1]
    assert "erased: 1 calls, 1 answers, 1 judgements" in gone and f"llmft data erase --id {call.id}" in gone
    assert "removed: 0 calls" in run(capsys, "journal", "retain", "--days", "30")[1]
    assert "records" in run(capsys, "journal", "export", "--output", tmp_path / "journal.jsonl")[1]
    assert run(capsys, "journal", "verify", "--anchor", anchor)[0] == 0
    with desk.writing() as connection:
        connection.exec_driver_sql("DELETE FROM journal WHERE sequence = 4")
    code, said, faults = run(capsys, "journal", "verify")
    assert code == 1 and "NOT whole" in said and "record 4 is missing" in faults
