"""The verbs about data, from the command line to what stands on disk."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import pytest
from tiny_stage import FILES, SECRET, chat, contents, lines_of, nonsense, record, splits_of, write_rows

from llmft.cli import main
from llmft.prepare.reporting.audit import fingerprint
from llmft.prepare.reporting.report import read_report
from llmft.prepare.splits import SPLITS


@pytest.fixture(autouse=True)
def vault(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_VAULT", str(tmp_path / "vault"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "vault"


@pytest.fixture
def calls(tmp_path):
    """Forty calls of twenty patients, half of them labelled."""
    labels = {"urgency": "U2", "specialty": "cardiologie", "icd10": "R07.4"}
    rows = [chat(n, subject=f"P{n // 2}", **({"labels": labels} if n % 2 else {})) for n in range(40)]
    return write_rows(tmp_path / "calls.jsonl", rows)


@pytest.fixture
def prepared(calls, tmp_path, capsys):
    out = tmp_path / "data" / "prepared" / "calls"
    assert main(["prepare", str(calls), "--output", str(out), "--workers", "1"]) == 0
    capsys.readouterr()
    return out


def test_prepare_tells_what_it_did(calls, tmp_path, vault, capsys):
    out = tmp_path / "out"
    assert main(["prepare", str(calls), "--output", str(out), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 20 families, split by group" in printed
    assert "40 rows in = 40 out + 0 quarantined + 0 duplicates + 0 refused" in printed
    assert f"guessed: {calls}: format chats" in printed and f"report: {out / 'report.html'}" in printed
    assert sorted(contents(out)) == FILES and (vault / "subject.salt").is_file()
    assert SECRET not in printed


def test_prepare_takes_every_option(tmp_path, capsys):
    path = tmp_path / "calls.csv"
    rows = [f'{n};"A: {nonsense(n)} avez-vous mal ?\nB: j\'ai mal, oui.\nA: Bien."' for n in range(12)]
    path.write_text("Numéro;Texte\n" + "\n".join(rows) + "\n", "cp1252")
    roster = tmp_path / "doctors.csv"
    roster.write_text("doctor_id,name,specialty\nD1,Dr Exemple,cardiologie\n", "utf-8")
    out = tmp_path / "out"
    told = ["--format", "table", "--columns", "transcript=Texte,id=Numéro", "--separator", ";", "--encoding", "cp1252"]
    told += ["--roles", "A=operator,B=patient", "--doctors", str(roster), "--layers", "roster,contacts", "--no-weak-labels"]
    told += ["--no-near-duplicates", "--audit", "5", "--folds", "2", "--parquet", "--seed", "3", "--workers", "1", "--strict"]
    assert main(["prepare", str(path), "--output", str(out), *told]) == 0
    assert sorted(contents(out)) == sorted(
        [*FILES, "audit.html", "doctors.json", "folds.jsonl", *(f"{split}.parquet" for split in SPLITS)]
    )
    assert len(splits_of(out)) == 12 and read_report(out / "report.json").seed == 3
    assert f"audit:  {out / 'audit.html'} (open it, tick, sign)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--strict"], "calls.jsonl:1: field turns: "),
        (["--recent-from", "soon"], "--recent-from soon: not a day; write it as 2026-09-01"),
        (["--roles", "A=boss"], "--roles: 'A' has no role; write NAME=patient"),
        (["--roles", "A"], "--roles: 'A' has no role; write NAME=patient"),
        (["--format", "xls"], "format 'xls' is not one of auto, jsonl"),
        (["--layers", "magic"], "'magic' is no layer of de-identification"),
        (["--folds", "1"], "--folds 1: too few; give at least 2"),
        (["--workers", "0"], "--workers 0: too few; give at least 1"),
        (["--seed", "-1"], "--seed -1: too few; give at least 0"),
        (["--count", "0"], "--count 0: too few; give at least 1"),
        (["--audit", "0"], "--audit 0: too few; give at least 1 call"),
        (["--layers", "external"], "the layer 'external' needs a recogniser"),
        (["--doctors", "/nowhere.csv"], "/nowhere.csv"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, arguments, sentence):
    bad = chat(0)
    bad["messages"] = bad["messages"][:1]
    source = write_rows(tmp_path / "calls.jsonl", [bad, *(chat(n) for n in range(1, 8))])
    assert main(["prepare", str(source), "--output", str(tmp_path / "out"), "--workers", "1", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("llmft: ") and printed.err.count("\n") == 1
    assert sentence in printed.err and "Traceback" not in printed.err
    assert SECRET not in printed.err and not (tmp_path / "out" / "report.json").exists()
    assert arguments == ["--strict"] or not (tmp_path / "out").exists()  # told before the first row is read


def test_sql_answers_as_a_table_and_as_csv(prepared, capsys):
    question = "SELECT speaker, count(*) AS turns FROM turns GROUP BY speaker ORDER BY speaker"
    assert main(["data", "sql", question, "--set", str(prepared)]) == 0
    printed = capsys.readouterr().out
    assert "speaker" in printed and "operator" in printed and "40" in printed
    assert main(["data", "sql", question, "--set", str(prepared), "--csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["speaker", "turns"], ["operator", "40"], ["patient", "40"]]


@pytest.mark.parametrize("sql", ["DROP TABLE turns", "SELEC 1", "SELECT * FROM nowhere", "SELECT * FROM read_csv('/etc/passwd')"])
def test_sql_that_may_not_run_is_one_line(prepared, capsys, sql):
    before = (prepared / "calls.duckdb").read_bytes()
    assert main(["data", "sql", sql, "--set", str(prepared)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("llmft: the SQL ") and printed.err.count("\n") == 1 and printed.out == ""
    assert (prepared / "calls.duckdb").read_bytes() == before


def test_sql_without_a_set_says_how_to_make_one(tmp_path, capsys):
    assert main(["data", "sql", "SELECT 1", "--set", str(tmp_path / "none")]) == 1
    assert "make it with: llmft prepare" in capsys.readouterr().err


def test_erase_takes_a_person_out_for_good(prepared, calls, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    report = read_report(prepared / "report.json")
    (run / "manifest.json").write_text(json.dumps({"data_sha256": {s: report.files[f"{s}.jsonl"] for s in SPLITS}}))
    assert main(["data", "erase", "--subject", "P3"]) == 0
    printed = capsys.readouterr().out
    assert "2 calls removed from data/prepared/calls" in printed and "runs/first was trained on it" in printed
    assert not {"c6", "c7"} & set(splits_of(prepared)) and len(splits_of(prepared)) == 38
    everything = b"".join(path.read_bytes() for path in prepared.iterdir())
    assert nonsense(6).encode() not in everything and nonsense(8).encode() in everything
    assert main(["prepare", str(calls), "--output", str(prepared), "--workers", "1"]) == 0
    assert len(splits_of(prepared)) == 38 and read_report(prepared / "report.json").refusal_reasons == {"erased": 2}
    capsys.readouterr()
    assert main(["data", "erase", "--id", "c9"]) == 0
    assert "1 calls removed from data/prepared/calls" in capsys.readouterr().out


def test_erase_needs_one_of_person_and_call(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "erase"]) == 1
    assert "give either --subject or --id" in capsys.readouterr().err


def test_a_signed_audit_comes_into_the_report(prepared, tmp_path, capsys):
    digest = fingerprint(read_report(prepared / "report.json").files)
    signed = {"kind": "llmft-audit", "set_sha256": digest, "seed": 1, "sampled": 20, "reviewed": 20, "leaks": [], "wrong": []}
    signed |= {"leak_bound": 0.0, "signed_by": "A. Steward", "signed_on": "2026-11-21"}
    (tmp_path / "audit.json").write_text(json.dumps(signed))
    assert main(["data", "sign", str(tmp_path / "audit.json"), "--set", str(prepared)]) == 0
    assert "at most 13.9% of the calls hold a leak" in capsys.readouterr().out  # 1 - 0.05 ** (1 / 20)
    assert read_report(prepared / "report.json").audit["signed_by"] == "A. Steward"
    (tmp_path / "audit.json").write_text(json.dumps(signed | {"set_sha256": "00"}))
    assert main(["data", "sign", str(tmp_path / "audit.json"), "--set", str(prepared)]) == 1
    assert "was signed for another state" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_a_split_goes_out_to_be_labelled(prepared, tmp_path, capsys, form):
    out = tmp_path / "tasks.json"
    assert main(["data", "label", "--set", str(prepared), "--form", form, "--output", str(out)]) == 0
    count = len(lines_of(prepared / "train.jsonl"))
    assert f"{out}: {count} calls" in capsys.readouterr().out
    assert len(json.loads(out.read_text("utf-8"))) == count
    assert out.with_suffix(".xml").is_file() == (form == "label-studio")


def test_deidentify_replaces_row_by_row(tmp_path, capsys):
    rows = [{"id": "a", "text": "ici kwyjibo, au 06 12 34 56 78", "roster": {"patient": ["Zoé Kwyjibo"]}}, "{"]
    source, out = write_rows(tmp_path / "notes.jsonl", rows), tmp_path / "clean.jsonl"
    assert main(["deidentify", "--input", str(source), "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 1 of 2 rows, replaced: NOM 1, TEL 1" in printed and "1 rows set aside" in printed
    assert lines_of(out) == [{"id": "a", "text": "ici [NOM_1], au [TEL_1]"}]
    assert main(["deidentify", "--input", str(tmp_path / "none"), "--output", str(out)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_uses_all_cores_and_leaves_nothing_behind(tmp_path):
    """As a user runs it: a process of its own, the sources read from another folder, the vault where it belongs."""
    write_rows(tmp_path / "in" / "calls.jsonl", [record(n) for n in range(30)])
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-m", "llmft.cli", "prepare", "../in", "--output", "out"]
    where = {"cwd": tmp_path / "here", "env": {**os.environ, "LLMFT_VAULT": str(tmp_path / "vault")}}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "here" / "out").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in", "vault"]
