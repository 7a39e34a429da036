"""Every form that calls come in, through the whole stage: the same two calls told a dozen ways are the same two calls."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from test_ddxplus import write_folder
from tiny_stage import changed, lines_of, nonsense, options, record, splits_of, tables, write_rows

from llmft.dialogue import read_dialogues
from llmft.errors import DialogueError
from llmft.prepare.parquet_out import write_parquet
from llmft.prepare.readers.sources import FORMATS, ReadOptions, find_sources
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import prepare

CALLS = (
    (
        ("patient", "Bonjour, j'ai mal à la gorge depuis deux jours."),
        ("operator", "D'accord, avez-vous de la fièvre ?"),
        ("patient", "Oui, un peu, et je tousse la nuit."),
        ("operator", "Très bien, je vous propose un rendez-vous."),
    ),
    (
        ("operator", "Cabinet médical bonjour, je vous écoute."),
        ("patient", "Je me suis tordu la cheville, elle est gonflée."),
        ("operator", "Pouvez-vous poser le pied ? Je vous conseille une radio."),
    ),
)
FACTS = (("U3", "ORL", "34 ans", "F"), ("U4", "", "", "M"))
NAMES = {"patient": "PATIENT", "operator": "OPÉRATEUR"}
HEADER = ("Texte", "Niveau d'urgence", "Spécialité", "Âge", "Sexe")


def written_out(turns) -> str:
    return "\n".join(f"{NAMES[speaker]} : {text}" for speaker, text in turns)


def table_rows() -> list[list[str]]:
    return [[written_out(turns), *facts] for turns, facts in zip(CALLS, FACTS, strict=True)]


def as_csv(folder: Path, encoding: str = "utf-8", separator: str = ";") -> Path:
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows([HEADER, *table_rows()])
    (folder / "calls.csv").write_bytes(file.getvalue().encode(encoding))
    return folder / "calls.csv"


def as_packed_csv(folder: Path) -> Path:
    path = folder / "packed.tsv.gz"
    path.write_bytes(gzip.compress(as_csv(folder, "cp1252", "\t").read_bytes(), mtime=0))
    (folder / "calls.csv").unlink()
    return path


def as_xlsx(folder: Path) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [HEADER, *table_rows()]:
        book.active.append(row)
    book.save(folder / "calls.xlsx")
    return folder / "calls.xlsx"


def as_turns_csv(folder: Path) -> Path:
    rows = [(f"A{n}", speaker, text) for n, turns in enumerate(CALLS) for speaker, text in turns]
    path = folder / "turns.csv"
    path.write_text("\n".join(["id,speaker,text", *(f'{name},{speaker},"{text}"' for name, speaker, text in rows)]), "utf-8")
    return path


def as_messages(folder: Path) -> Path:
    roles = {"patient": "user", "operator": "assistant"}
    rows = [{"messages": [{"role": roles[speaker], "content": text} for speaker, text in turns]} for turns in CALLS]
    return write_rows(folder / "messages.jsonl", rows)


def as_sharegpt(folder: Path) -> Path:
    roles = {"patient": "human", "operator": "gpt"}
    rows = [{"conversations": [{"from": roles[speaker], "value": text} for speaker, text in turns]} for turns in CALLS]
    (folder / "sharegpt.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    return folder / "sharegpt.json"


def as_text(folder: Path) -> Path:
    (folder / "calls.txt").write_text("\n\n".join(map(written_out, CALLS)) + "\n", "utf-8")
    return folder / "calls.txt"


def cues(turns) -> list[tuple[int, int, str, str]]:
    return [(4 * n, 4 * n + 3, NAMES[speaker], text) for n, (speaker, text) in enumerate(turns)]


def as_subtitles(folder: Path) -> Path:
    (folder / "subtitles").mkdir()
    srt = [f"{a}\n00:00:{a:02},000 --> 00:00:{b:02},000\n{who}: {text}\n" for a, b, who, text in cues(CALLS[0])]
    vtt = [f"00:00:{a:02}.000 --> 00:00:{b:02}.000\n<v {who}>{text}</v>\n" for a, b, who, text in cues(CALLS[1])]
    (folder / "subtitles" / "a.srt").write_text("\n".join(srt), "utf-8")
    (folder / "subtitles" / "b.vtt").write_text("\n".join(["WEBVTT\n", *vtt]), "utf-8")
    return folder / "subtitles"


def as_whisper(folder: Path) -> Path:
    speakers = {"patient": "SPEAKER_01", "operator": "SPEAKER_00"}
    rows = []
    for turns in CALLS:
        said = [(4.0 * n, who, text) for n, (who, text) in enumerate(turns)]
        segments = [{"start": start, "end": start + 3, "text": f" {text}", "speaker": speakers[who]} for start, who, text in said]
        rows.append({"text": "…", "language": "fr", "segments": segments})
    return write_rows(folder / "whisper.jsonl", rows)


def as_transcribe(folder: Path) -> Path:
    (folder / "transcribe").mkdir()
    for number, turns in enumerate(CALLS):
        labels = {"patient": "spk_0", "operator": "spk_1"}
        segments = [
            {"transcript": text, "start_time": str(4 * n), "end_time": str(4 * n + 3), "speaker_label": labels[speaker]}
            for n, (speaker, text) in enumerate(turns)
        ]
        value = {"jobName": "j", "results": {"language_code": "fr-FR", "audio_segments": segments, "items": []}}
        (folder / "transcribe" / f"{number}.json").write_text(json.dumps(value), "utf-8")
    return folder / "transcribe"


def as_table_parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {name: [row[place] for row in table_rows()] for place, name in enumerate(HEADER)}
    parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    return folder / "table.parquet"


FORMS = {
    "csv": (as_csv, "table"),
    "packed csv": (as_packed_csv, "table"),
    "xlsx": (as_xlsx, "table"),
    "a row a turn": (as_turns_csv, "table"),
    "messages": (as_messages, "chats"),
    "sharegpt": (as_sharegpt, "chats"),
    "text": (as_text, "text"),
    "subtitles": (as_subtitles, "subtitles"),
    "whisper": (as_whisper, "speech"),
    "transcribe": (as_transcribe, "speech"),
    "parquet": (as_table_parquet, "table"),
}


@pytest.fixture
def given(tmp_path):
    return options(tmp_path, clean={"weak_labels": False})


def said(folder: Path) -> set[tuple[tuple[str, str], ...]]:
    """What the calls of a set say, without their triage blocks."""
    dialogues = [dialogue for split in SPLITS for dialogue in read_dialogues(folder / f"{split}.jsonl")]
    return {tuple((turn.speaker, turn.text.partition("\n```json")[0]) for turn in dialogue.turns) for dialogue in dialogues}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_recognised_and_read(tmp_path, given, form):
    write, file_format = FORMS[form]
    (tmp_path / "in").mkdir()
    place = write(tmp_path / "in")
    report = prepare([place], tmp_path / "out", given)
    assert (report.rows_in, report.rows_out) == (2, 2), report.quarantine_reasons
    assert said(tmp_path / "out") == set(CALLS)
    assert {source["format"] for source in report.sources} == {file_format}
    assert sum(source["rows"] for source in report.sources) == 2
    assert all(f"{source['path']}: format {file_format}" in report.guessed for source in report.sources)
    assert report.languages == {"fr": 2}


@pytest.mark.parametrize("form", ["csv", "packed csv", "xlsx", "parquet"])
def test_a_table_brings_its_labels_and_shows_what_was_guessed(tmp_path, given, form):
    place = FORMS[form][0](tmp_path)
    report = prepare([place], tmp_path / "out", given)
    assert report.urgencies == {"U3": 1, "U4": 1} and report.specialties == {"orl": 1, "indetermine": 1}
    assert report.without_triage == {"train": 0, "validation": 0, "test": 0}
    shown = "\n".join(report.guessed)
    for line in ("transcript ◀ Texte (by its name)", "urgency ◀ Niveau d'urgence (by its name)", "form: one row a call"):
        assert line in shown
    people = {(row[8], row[10]) for row in tables(tmp_path / "out" / "calls.duckdb")["dialogues"]}
    assert people == {(34, "F"), (None, "M")}


def test_what_was_guessed_may_be_said_instead(tmp_path, given):
    path = as_csv(tmp_path, "cp1252", "|")
    read = ReadOptions(file_format="table", columns="transcript=Texte,urgency=", separator="|", encoding="cp1252")
    report = prepare([path], tmp_path / "out", changed(given, read=read))
    assert said(tmp_path / "out") == set(CALLS) and report.rows_out == 2
    assert report.urgencies == {"indetermine": 1, "unlabelled": 1}  # the specialty alone is left
    assert not any("format table" in line for line in report.guessed)
    with pytest.raises(DialogueError, match="no column is called 'Nowhere'; the columns are Texte"):
        prepare([path], tmp_path / "out", changed(given, read=ReadOptions(columns="transcript=Nowhere")))


def test_an_instruction_with_its_answer_is_a_short_call(tmp_path, given):
    rows = [
        {"instruction": CALLS[0][0][1], "input": "", "output": CALLS[0][3][1]},
        {"instruction": "", "output": "Oui, merci bien."},
    ]
    report = prepare([write_rows(tmp_path / "alpaca.json", [json.dumps(rows)])], tmp_path / "out", given)
    assert said(tmp_path / "out") == {(CALLS[0][0], CALLS[0][3])}
    assert (report.rows_out, report.quarantined, report.sources[0]["format"]) == (1, 1, "chats")


def test_a_mixed_folder_is_read_whole_and_the_same_calls_are_found_in_it(tmp_path, given):
    folder = tmp_path / "in"
    folder.mkdir()
    for write, _ in FORMS.values():
        write(folder)
    as_csv(folder)
    write_rows(folder / "deep" / "er" / "records.jsonl", [record(1), record(2)])
    write_rows(folder / "deep" / "notes.md", ["not a call"])
    write_rows(folder / ".hidden" / "calls.jsonl", [record(3)])
    report = prepare([folder], tmp_path / "out", given)
    rows = 2 * len(FORMS) + 2
    assert (report.rows_in, report.rows_out, report.duplicates) == (rows, 4, rows - 4)
    assert set(CALLS) < said(tmp_path / "out") and report.quarantined == report.refused == 0
    assert sum(report.duplicate_kinds.values()) == rows - 4
    again = prepare([folder, folder / "*.csv", folder / "deep" / ".." / "calls.txt"], tmp_path / "again", given)
    assert again.rows_in == rows  # each file once, however often it is named


def test_a_mixed_folder_in_the_order_of_names(tmp_path):
    folder = tmp_path / ".data"  # a hidden folder that the user names is read
    write_rows(folder / "b.jsonl", [record(2)])
    write_rows(folder / "deep" / "a.jsonl", [record(1)])
    for name in ("quarantine.jsonl", "folds.jsonl", "doctors.json", "report.json", "lineage.jsonl", "versions.jsonl"):
        write_rows(folder / name, ["{}"])
    assert [source.path.name for source in find_sources([folder])] == ["b.jsonl", "a.jsonl"]
    taken = [source.path.name for source in find_sources([folder / "*.jsonl"])]
    assert taken == [
        "b.jsonl",
        "folds.jsonl",
        "lineage.jsonl",
        "quarantine.jsonl",
        "versions.jsonl",
    ]  # a glob takes what it names


def test_a_folder_above_is_read(tmp_path, monkeypatch):
    write_rows(tmp_path / "calls" / "a.jsonl", [record(1)])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert [source.name for source in find_sources(["../calls"])] == ["../calls/a.jsonl"]


def test_a_prepared_folder_is_a_source(tmp_path, given):
    source = write_rows(tmp_path / "calls.jsonl", [record(n) for n in range(20)])
    prepare([source], tmp_path / "once", changed(given, folds=2))
    report = prepare([tmp_path / "once"], tmp_path / "twice", given)
    assert (report.rows_in, report.rows_out, report.split_by) == (20, 20, "record")
    for split in SPLITS:
        assert (tmp_path / "twice" / f"{split}.jsonl").read_bytes() == (tmp_path / "once" / f"{split}.jsonl").read_bytes()


def test_prepared_parquet_is_read_back_exactly(tmp_path, given):
    row = {**record(1), "turns": [{"speaker": s, "text": t} for s, t in CALLS[0]]}
    row["turns"][0]["text"] = "J'ai très mal dans la poitrine, ça serre et j'ai du mal à respirer."  # rules label it
    weak = changed(given, clean=type(given.clean)())
    prepare([write_rows(tmp_path / "c.jsonl", [row, record(2), record(5)])], tmp_path / "out", weak)
    dialogues = [dialogue for split in SPLITS for dialogue in read_dialogues(tmp_path / "out" / f"{split}.jsonl")]
    write_parquet(tmp_path / "calls.parquet", dialogues)
    report = prepare([tmp_path / "calls.parquet"], tmp_path / "again", weak)
    assert report.sources[0]["format"] == "parquet" and report.rows_out == len(dialogues)
    for name in (f"{split}.jsonl" for split in SPLITS):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_ddxplus_is_a_source(tmp_path, given):
    folder = write_folder(tmp_path / "ddxplus")
    read = ReadOptions(count=4)
    report = prepare([folder], tmp_path / "out", changed(given, read=read))
    assert report.sources[0]["format"] == "ddxplus" and report.rows_in == report.sources[0]["rows"] > 20
    assert report.origins == {"synthetic": report.rows_out} and report.licenses == {"CC-BY-4.0": report.rows_out}


def save_dataset(folder: Path, splits: dict[str, int]) -> Path:
    """Rows of a table, so many a split, as ``datasets`` saves them; the words stand in a column that nobody can guess."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    numbers = iter(range(1000))

    def rows(count: int) -> list[dict[str, str]]:
        said = [f"PATIENT : {nonsense(next(numbers))} OPÉRATEUR : Oui." for _ in range(count)]
        return [{"x1": f"n{number}", "x2": text, "x3": "U2", "langue": "fr"} for number, text in enumerate(said)]

    tables = {name: datasets.Dataset.from_list(rows(count)) for name, count in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(folder)
    return folder


COLUMNS = ReadOptions(columns="transcript=x2,urgency=x3")


def test_columns_reach_a_dataset_folder_and_are_checked_before_a_row_is_read(tmp_path, given):
    folder = save_dataset(tmp_path / "ds", {"train": 8, "validation": 2, "test": 3})
    report = prepare([folder], tmp_path / "out", changed(given, read=COLUMNS))
    assert (report.rows_in, report.rows_out, report.urgencies) == (13, 13, {"U2": 13})
    assert [(source["format"], source["rows"]) for source in report.sources] == [("dataset", 8), ("dataset", 2), ("dataset", 3)]
    assert any(line.startswith(f"{folder / 'train'}: ") and "transcript ◀ x2 (as you said)" in line for line in report.guessed)
    with pytest.raises(DialogueError, match="no column is called 'x9'; the columns are x1, x2, x3, langue"):
        prepare([folder], tmp_path / "none", changed(given, read=ReadOptions(columns="transcript=x9")))
    assert not (tmp_path / "none").exists()


def test_splits_that_are_named_as_ours_are_kept_and_others_are_split_anew(tmp_path, given):
    kept = prepare(
        [save_dataset(tmp_path / "ours", {"train": 8, "dev": 2, "test": 3})], tmp_path / "a", changed(given, read=COLUMNS)
    )
    assert (kept.split_by, kept.splits) == ("record", {"train": 8, "validation": 2, "test": 3})
    assert f"{tmp_path / 'ours' / 'dev'}: its rows stay in validation" in kept.guessed
    for name, splits in {
        "alone": {"train": 13},
        "others": {"train": 8, "test_sft": 5},
        "no test": {"train": 8, "val": 5},
    }.items():
        report = prepare([save_dataset(tmp_path / name, splits)], tmp_path / "b", changed(given, read=COLUMNS))
        assert (report.split_by, report.rows_out) == ("group", 13), name
    report = prepare([tmp_path / "ours" / "train"], tmp_path / "b", changed(given, read=COLUMNS))
    assert (report.split_by, report.rows_out) == ("group", 8)  # one split named by itself is split anew


def test_a_dataset_of_chats_needs_no_columns(tmp_path, given):
    datasets = pytest.importorskip("datasets")
    path = as_messages(tmp_path)
    datasets.disable_progress_bars()
    datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache")).save_to_disk(tmp_path / "chats")
    report = prepare([tmp_path / "chats"], tmp_path / "out", given)
    assert said(tmp_path / "out") == set(CALLS) and f"{tmp_path / 'chats'}: rows of messages" in report.guessed


def test_a_damaged_dataset_folder_is_one_sentence(tmp_path):
    pytest.importorskip("datasets")
    for name in ("dataset_info.json", "dataset_dict.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{")
        with pytest.raises(DialogueError, match="is no whole dataset folder"):
            find_sources([tmp_path / name])


def test_a_hub_name_is_a_dataset_with_splits(tmp_path, given, monkeypatch):
    """The library takes a folder of that name below the working directory for the hub's, so no network is needed."""
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    for split, numbers in {"train": range(8), "test": range(8, 11)}.items():
        write_rows(tmp_path / "owner" / "name" / f"{split}.jsonl", [{"x1": n, "x2": row_of(n)} for n in numbers])
    report = prepare(["hub:owner/name"], tmp_path / "out", changed(given, read=ReadOptions(columns="transcript=x2")))
    assert (report.rows_out, report.splits) == (11, {"train": 8, "validation": 0, "test": 3})
    assert [source["path"] for source in report.sources] == ["hub:owner/name:train", "hub:owner/name:test"]
    assert [source.name for source in find_sources(["hub:owner/name:test"], COLUMNS_OF_HUB)] == ["hub:owner/name:test"]
    with pytest.raises(DialogueError, match="hub:owner/name:dev: no split 'dev' among train, test"):
        find_sources(["hub:owner/name:dev"])


COLUMNS_OF_HUB = ReadOptions(columns="transcript=x2")


def row_of(number: int) -> str:
    return f"PATIENT : j'ai mal, {nonsense(number)} OPÉRATEUR : Oui, je comprends."


def test_a_wrong_hub_name_is_refused_before_any_network():
    for name in ("hub:owner", "hub:../x", "hub:a/b:c:d"):
        with pytest.raises(DialogueError, match="names no dataset"):
            find_sources([name])


def test_a_roster_beside_the_words_takes_the_names_out_and_is_never_written(tmp_path, given):
    roster = {"patient": "Zoé Kwyjibo", "phone": "06 12 34 56 78"}
    first = f"c'est kwyjibo, au 06 12 34 56 78, {nonsense(1)}"
    turns = [{"role": "user", "content": first}, {"role": "assistant", "content": "Oui."}]
    row = {"id": "a", "lang": "fr", "subject": "P-77", "date": "2026-11-20", "roster": roster, "messages": turns}
    prepare([write_rows(tmp_path / "calls.jsonl", [row])], tmp_path / "out", given)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for secret in (b"wyjibo", b"34 56", b"P-77", b"2026-11-20"):
        assert secret not in everything
    ((_, text),) = [turn for call in said(tmp_path / "out") for turn in call if turn[0] == "patient"]
    assert text.startswith("c'est [NOM_1], au [TEL_1], ")


def test_no_source_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(DialogueError, match="no source was given"):
        find_sources([])
    with pytest.raises(DialogueError, match=f"format 'xls' is not one of {', '.join(FORMATS)}"):
        find_sources([tmp_path], ReadOptions(file_format="xls"))


def test_a_folder_is_not_read_as_a_file(tmp_path):
    (tmp_path / "odd.jsonl" / "in.jsonl").mkdir(parents=True)
    with pytest.raises(DialogueError, match="holds no file of a known form"):
        find_sources([tmp_path / "odd.jsonl"])


def test_a_file_of_many_rows_names_its_rows(tmp_path, given):
    """The line of a CSV, the line of JSONL, the number in a JSON list: where a person finds the row again."""
    as_csv(tmp_path)
    as_sharegpt(tmp_path)
    prepare([tmp_path / "calls.csv"], tmp_path / "out", given)
    rows = lines_of(tmp_path / "out" / "lineage.jsonl")
    assert [(Path(row["source"]).name, row["row"]) for row in rows] == [("calls.csv", 2), ("calls.csv", 6)]
    prepare([tmp_path / "sharegpt.json"], tmp_path / "out", given)
    assert [row["row"] for row in lines_of(tmp_path / "out" / "lineage.jsonl")] == [1, 2]
    assert len(splits_of(tmp_path / "out")) == 2
