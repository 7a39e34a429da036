"""An erased person is gone from every set, stays out, and what was trained on them is named; nobody else is touched."""

from __future__ import annotations

import json
import re
import shutil
import stat
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_set import calls, prepared_set

from llmft.dialogue import read_dialogues
from llmft.errors import DialogueError
from llmft.prepare import erase as erase_module
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.database import build_database, query
from llmft.prepare.erase import Erasure, Places, describe, erase
from llmft.prepare.lineage import (
    add_tombstone,
    dialogue_key,
    is_erased,
    names_somebody,
    origin_of,
    read_lineage,
    read_tombstones,
    read_versions,
    remember_version,
)
from llmft.prepare.reporting.audit import audit_of, fingerprint, sign_off, write_sheet
from llmft.prepare.reporting.report import read_report
from llmft.run import sha256
from llmft.vault import default_vault, open_vault, subject_key

DAY = date(2026, 11, 21)
SPLITS = ("train.jsonl", "validation.jsonl", "test.jsonl")


@pytest.fixture
def places(tmp_path):
    """Two sets; "one" with database and audit sheet, a run trained on each, an export of the first."""
    places = Places(tmp_path / "prepared", tmp_path / "runs", tmp_path / "export", tmp_path / "vault")
    dialogues = calls(40)
    prepared_set(places.prepared / "one", places.vault, dialogues)
    prepared_set(places.prepared / "two", places.vault, calls(44)[40:])  # its P0, P1 are other people's calls
    build_database(places.prepared / "one")
    write_sheet(places.prepared / "one", 40, seed=1)
    for name in ("one", "two"):
        train(places, name)
    export(places, "one")
    return places


def train(places: Places, name: str, run: str | None = None) -> None:
    folder = places.runs / (run or name)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_text(f"weights of {run or name}")
    hashes = {file: sha256(places.prepared / name / file) for file in SPLITS[:2]}
    (folder / "data.json").write_text(json.dumps(hashes))
    (folder / "manifest.json").write_text(json.dumps({"data_sha256": hashes}))


def export(places: Places, run: str) -> None:
    adapter = places.runs / run / "adapter"
    origin = {"adapter": "elsewhere", "adapter_sha256": sha256(adapter / "adapter_model.safetensors")}
    folder = places.exports / run
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"files": {f"{run}-Q4_0.gguf": {"made_from": origin}}}))


def ids_of(folder: Path) -> dict[str, set[str]]:
    return {file: {dialogue.id for dialogue in read_dialogues(folder / file)} for file in SPLITS}


def ids_of_subject(places: Places, name: str, subject: str) -> set[str]:
    key = subject_key(subject, open_vault(places.vault))
    return {origin.id for origin in read_lineage(places.prepared / name) if origin.subject_hash == key}


def subject_in(places: Places, split: str, *, only: bool = False) -> str:
    """A subject of set "one" with a call in ``split``; with ``only``, nowhere else."""
    inside = ids_of(places.prepared / "one")[split]
    for number in range(20):
        ids = ids_of_subject(places, "one", f"P{number}")
        if ids & inside and (not only or ids <= inside):
            return f"P{number}"
    raise AssertionError("no such subject")


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_salt_is_made_once_and_for_the_owner_alone(tmp_path):
    salt = open_vault(tmp_path / "vault")
    assert open_vault(tmp_path / "vault") == salt and len(salt) == 32
    assert stat.S_IMODE((tmp_path / "vault" / "subject.salt").stat().st_mode) == 0o600
    assert open_vault(tmp_path / "other") != salt
    assert [path.name for path in (tmp_path / "vault").iterdir()] == ["subject.salt"]


def test_missing_and_damaged_salt_are_named(tmp_path):
    with pytest.raises(DialogueError, match=r"subject\.salt is not there"):
        open_vault(tmp_path, create=False)
    (tmp_path / "subject.salt").write_text("short")
    with pytest.raises(DialogueError, match="damaged"):
        open_vault(tmp_path)


def test_vault_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMFT_VAULT", str(tmp_path))
    assert default_vault() == tmp_path
    monkeypatch.delenv("LLMFT_VAULT")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_vault() == Path("/data/llmft")


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_tell_subjects_apart_and_kinds_too(one, other):
    salt, plain = bytes(32), one.strip().casefold()
    assert subject_key(one, salt) == subject_key(f" {one} ", salt)
    assert subject_key(one, salt) != dialogue_key(one, salt)
    assert subject_key(one, salt) != subject_key(one, bytes(31) + b"x")
    assert re.fullmatch("[0-9a-f]{64}", subject_key(one, salt))
    if plain.isascii() and other.isascii() and plain != other.strip().casefold():
        assert subject_key(one, salt) != subject_key(other, salt)


def test_origin_holds_nothing_in_clear(tmp_path):
    salt = open_vault(tmp_path)
    call = RawCall("a.csv", 7, (RawTurn("patient", "je suis Mme Durand"),), subject="1 85 05 78 006 084")
    origin = origin_of(call, "c1", salt)
    assert (origin.id, origin.source, origin.row) == ("c1", "a.csv", 7)
    assert origin.subject_hash == subject_key("1 85 05 78 006 084", salt)
    assert not re.search("Durand|006|084 ", str(origin).replace(origin.sha256, "").replace(origin.subject_hash, ""))
    assert origin_of(call, "c1", bytes(32)).sha256 != origin.sha256  # a guess cannot be tried out without the salt
    assert origin_of(RawCall("a.csv", 8, call.turns), "c2", salt).subject_hash is None


@pytest.mark.parametrize(
    ("name", "told"),
    [("durand-jeanne.vtt", True), ("appel_Mme_Durand.txt", True), ("Claire Martin 2026-03-01.json", True)]
    + [(name, False) for name in ("appels_2026-09.csv", "calls.jsonl", "rose.txt", "SAMU59.xlsx", "lyon.csv", "whisper.json")],
)
def test_a_file_name_that_reads_like_a_persons_is_told(name, told):
    assert names_somebody(Path("/exports/durand") / name) is told


def test_erased_person_is_in_no_file_of_any_set(places):
    subject = subject_in(places, "train.jsonl")
    gone = ids_of_subject(places, "one", subject)
    before = ids_of(places.prepared / "one")
    erasure = erase(places, subject=subject, day=DAY)
    assert erasure.rows[str(places.prepared / "one")] == len(gone) == 2
    assert not any(name.encode() in everything(places.prepared / "one") for name in gone)
    assert ids_of(places.prepared / "one") == {file: ids - gone for file, ids in before.items()}
    database = places.prepared / "one" / "calls.duckdb"
    assert query(database, "SELECT (SELECT count(*) FROM dialogues), (SELECT count(*) FROM lineage)").rows == ((38, 38),)
    assert not (places.prepared / "one" / "audit.html").exists()  # the sample was the whole set


def test_lines_of_others_stay_byte_identical(places):
    folder = places.prepared / "one"
    gone = ids_of_subject(places, "one", "P3")
    before = {file: (folder / file).read_text("utf-8").splitlines() for file in (*SPLITS, "lineage.jsonl")}
    erase(places, subject="P3", day=DAY)
    for file, lines in before.items():
        assert (folder / file).read_text("utf-8").splitlines() == [line for line in lines if json.loads(line)["id"] not in gone]


def test_report_still_adds_up_after_an_erasure(places):
    erase(places, subject="P3", day=DAY)
    report = read_report(places.prepared / "one" / "report.json")
    assert (report.rows_in, report.rows_out, report.refused) == (40, 38, 2)
    assert report.refusal_reasons == {"erased": 2} and sum(report.splits.values()) == 38
    assert report.erasures == ({"date": "2026-11-21", "rows": 2},)
    assert report.files == {file: sha256(places.prepared / "one" / file) for file in SPLITS}


def test_a_signed_audit_goes_on_without_the_names_of_erased_calls(places, tmp_path):
    folder = places.prepared / "one"
    gone = sorted(ids_of_subject(places, "one", "P3"))
    facts = {"kind": "llmft-audit", "set_sha256": fingerprint(read_report(folder / "report.json").files), "seed": 1}
    found = {"sampled": 40, "reviewed": 40, "leaks": gone, "wrong": [], "leak_bound": 0.1}
    (tmp_path / "signed.json").write_text(json.dumps({**facts, **found, "signed_by": "A. Steward", "signed_on": "2026-11-21"}))
    sign_off(folder, tmp_path / "signed.json")
    erasure = erase(places, subject="P3", day=DAY)
    report = read_report(folder / "report.json")
    assert report.audit and report.audit["leaks"] == ["erased", "erased"] and report.audit["signed_by"] == "A. Steward"
    assert audit_of(folder, report.files) == (report.audit, ())  # what prepare would read
    assert not any(name.encode() in everything(folder) for name in gone)
    assert erasure.unknown_files == ()


def test_tombstone_keeps_the_person_out_and_says_nothing(places):
    salt = open_vault(places.vault)
    erase(places, subject="P3", day=DAY)
    stones = read_tombstones(places.vault)
    assert list(stones) == [subject_key("P3", salt)] and stones[subject_key("P3", salt)].date == "2026-11-21"
    assert is_erased("p3 ", "any", salt, stones) and not is_erased("P4", "any", salt, stones)
    assert not is_erased(None, "any", salt, stones) and not is_erased("P3", "any", salt, {})
    assert "P3" not in (places.vault / "tombstones.jsonl").read_text()


def test_one_call_is_erased_by_its_id(places):
    salt, name = open_vault(places.vault), sorted(ids_of_subject(places, "one", "P3"))[0]
    erasure = erase(places, dialogue_id=name, day=DAY)
    assert erasure.rows == {str(places.prepared / "one"): 1}
    assert is_erased("P3", name, salt, read_tombstones(places.vault))
    assert not is_erased("P3", "other", salt, read_tombstones(places.vault))


def test_runs_and_exports_trained_on_the_person_are_named(places):
    erasure = erase(places, subject=subject_in(places, "train.jsonl"), day=DAY)
    assert str(places.runs / "one") in erasure.runs
    assert erasure.exports == (str(places.exports / "one" / "one-Q4_0.gguf"),)
    text = "\n".join(describe(erasure))
    assert "train it again" in text and "withdraw it" in text


def test_a_person_of_the_test_set_alone_was_trained_on_by_nobody(tmp_path):
    places = Places(tmp_path / "prepared", tmp_path / "runs", tmp_path / "export", tmp_path / "vault")
    tested = [dialogue.model_copy(update={"split": "test" if n < 2 else "train"}) for n, dialogue in enumerate(calls(12))]
    prepared_set(places.prepared / "one", places.vault, tested)
    train(places, "one")
    assert subject_in(places, "test.jsonl", only=True) == "P0"
    assert erase(places, subject="P0", day=DAY).runs == ()


def test_runs_on_an_older_version_of_the_set_are_named(places):
    subjects = [
        f"P{n}" for n in range(20) if ids_of_subject(places, "one", f"P{n}") <= ids_of(places.prepared / "one")["train.jsonl"]
    ]
    erase(places, subject=subjects[0], day=DAY)
    train(places, "one", run="later")
    erasure = erase(places, subject=subjects[1], day=DAY)
    assert {str(places.runs / "one"), str(places.runs / "later")} <= set(erasure.runs)


def test_versions_are_noted_once_a_change(tmp_path):
    for files in ({"a": "1"}, {"a": "1"}, {"a": "2"}):
        remember_version(tmp_path, files)
    assert read_versions(tmp_path) == [{"a": "1"}, {"a": "2"}]


def test_dropped_duplicates_go_too_and_their_stand_ins_are_named(places):
    folder, salt = places.prepared / "one", open_vault(places.vault)
    kept = sorted(ids_of_subject(places, "one", "P5"))[0]
    call = RawCall("calls.csv", 99, (RawTurn("patient", "x"),), subject="P3")
    with (folder / "lineage.jsonl").open("a") as file:
        file.write(json.dumps(vars(origin_of(call, "dropped", salt))) + "\n")
    (folder / "duplicates.jsonl").write_text(
        json.dumps({"id": "dropped", "same_as": kept}) + "\n" + '{"id": "x", "same_as": "y"}\n'
    )
    erasure = erase(places, subject="P3", day=DAY)
    assert erasure.stand_ins == (kept,) and erasure.rows[str(folder)] == 2
    assert (folder / "duplicates.jsonl").read_text() == '{"id": "x", "same_as": "y"}\n'


def test_files_that_prepare_did_not_write_are_pointed_at(places):
    (places.prepared / "one" / "for_annotators.json").write_text("{}")
    shutil.copytree(places.prepared / "two", places.prepared / "three", ignore=shutil.ignore_patterns("lineage.jsonl"))
    erasure = erase(places, subject="P3", day=DAY)
    assert erasure.unknown_files == (str(places.prepared / "one" / "for_annotators.json"),)
    assert erasure.untraced == (str(places.prepared / "three"),)


def test_unknown_person_leaves_a_tombstone_and_no_change(places):
    before = everything(places.prepared)
    erasure = erase(places, subject="nobody", day=DAY)
    assert erasure == Erasure({}, (), (), (), (), ())
    assert everything(places.prepared) == before and len(read_tombstones(places.vault)) == 1
    assert describe(erasure) == ["found in no prepared set; the tombstone keeps it out of the next one"]


@pytest.mark.parametrize("given", [{}, {"subject": "a", "dialogue_id": "b"}])
def test_exactly_one_must_be_named(places, given):
    with pytest.raises(DialogueError, match="--subject or --id"):
        erase(places, **given)


class Killed(BaseException):
    """The process dies here."""


STEPS = [(name, 1) for name in ("_report_again", "remember_version", "build_database", "write_reports", "sha256")]


@pytest.mark.parametrize(("step", "call"), [*STEPS, ("sha256", 3), *(("_drop", number) for number in range(1, 6))])
def test_killed_erasure_is_finished_by_the_next(places, monkeypatch, step, call):
    undisturbed = Places(places.prepared.with_name("p2"), places.runs, places.exports, places.vault.with_name("v2"))
    shutil.copytree(places.prepared, undisturbed.prepared)
    shutil.copytree(places.vault, undisturbed.vault)
    wanted = erase(undisturbed, subject="P3", day=DAY)
    calls_made, real = 0, getattr(erase_module, step)

    def dies(*arguments, **named):
        nonlocal calls_made
        calls_made += 1
        if calls_made == call:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(erase_module, step, dies)
        with pytest.raises(Killed):
            erase(places, subject="P3", day=DAY)
    erasure = erase(places, subject="P3", day=DAY)
    assert (erasure.runs, erasure.exports) == (wanted.runs, wanted.exports)
    for name in ("one", "two"):
        for file in (*SPLITS, "lineage.jsonl", "report.json", "versions.jsonl"):
            ours, theirs = places.prepared / name / file, undisturbed.prepared / name / file
            assert ours.read_bytes() == theirs.read_bytes(), f"{name}/{file}"


def test_tombstones_add_up(tmp_path):
    open_vault(tmp_path)
    add_tombstone(tmp_path, "k", "2026-01-01", ["b"])
    add_tombstone(tmp_path, "l", "2026-01-02", [])
    stone = add_tombstone(tmp_path, "k", "2026-01-03", ["a"])
    assert (stone.date, stone.data_sha256) == ("2026-01-01", ("a", "b"))
    assert list(read_tombstones(tmp_path)) == ["k", "l"]
    (tmp_path / "tombstones.jsonl").write_text("{}\n")
    with pytest.raises(DialogueError, match="not a tombstone"):
        read_tombstones(tmp_path)
