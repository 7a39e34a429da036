"""Chat JSON in every form, datasets, Parquet of prepared dialogues; nothing in a file stops the reader."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.span import Roster
from llmft.dialogue import Dialogue, EvidenceMention, Fault, Labels, Turn, parse_dialogue
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.parquet_out import is_prepared_parquet, read_parquet, write_parquet
from llmft.prepare.readers.chats import read_chats, read_roster

OPENAI = {"messages": [{"role": "user", "content": "j'ai mal"}, {"role": "assistant", "content": "où ?"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "j'ai mal"}, {"from": "gpt", "value": "où ?"}]}
OURS = {"turns": [{"speaker": "patient", "text": "j'ai mal"}, {"speaker": "operator", "text": "où ?"}]}
ALPACA = {"instruction": "j'ai mal", "input": "", "output": "où ?"}
PLAIN = {"transcript": "PATIENT: j'ai mal\nOPÉRATEUR: où ?"}
TURNS = (RawTurn("patient", "j'ai mal"), RawTurn("operator", "où ?"))


def write(folder, content, name="calls.jsonl"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def outcome_of(tmp_path, record):
    (outcome,) = read_chats(write(tmp_path, lines(record)))
    return outcome


@pytest.mark.parametrize("record", [OPENAI, SHAREGPT, OURS, ALPACA, PLAIN, OPENAI["messages"]])
def test_every_form_gives_the_same_turns(tmp_path, record):
    call = outcome_of(tmp_path, record)
    assert (call.turns, call.row, call.id) == (TURNS, 1, None)


def test_what_stands_beside_the_words(tmp_path):
    beside = {"id": 7, "scenario": "s1", "patient_id": "P", "date": "2026-01-02", "language": "fr-FR", "license": "MIT"}
    beside |= {"urgency": "U2", "labels": {"specialty": "cardio"}, "labels_second": {"urgency": "U1"}, "source": "simulated"}
    beside |= {"patient": {"age": 54}, "roster": {"patient": "Anne Durand", "doctors": ["Dr Blanc", "Dr Roux"], "phone": None}}
    call = outcome_of(tmp_path, OPENAI | beside)
    assert call == RawCall(
        file=str(tmp_path / "calls.jsonl"),
        row=1,
        turns=TURNS,
        id="7",
        family="s1",
        subject="P",
        date="2026-01-02",
        lang="fr",
        labels={"urgency": "U2", "specialty": "cardio"},
        labels_second={"urgency": "U1"},
        patient={"age": 54},
        roster=Roster(patient=("Anne Durand",), doctors=("Dr Blanc", "Dr Roux")),
        source="simulated",
        license="MIT",
    )


def test_parts_times_system_and_history(tmp_path):
    parts = [{"type": "text", "text": "j'ai"}, {"type": "text", "text": "mal"}]
    messages = [{"role": "System", "content": "x"}, {"role": "user", "content": parts, "start": 1, "end": 2.5}]
    assert outcome_of(tmp_path, {"messages": messages}).turns == (
        RawTurn("system", "x"),
        RawTurn("patient", "j'ai\nmal", 1.0, 2.5),
    )
    alpaca = ALPACA | {"input": "au bras", "history": [["bonjour", "oui ?"]], "system": "x"}
    assert [(turn.speaker, turn.text) for turn in outcome_of(tmp_path, alpaca).turns] == [
        ("system", "x"),
        ("patient", "bonjour"),
        ("operator", "oui ?"),
        ("patient", "j'ai mal\nau bras"),
        ("operator", "où ?"),
    ]


BAD = {
    "[1]": "messages[0]",
    "7": "",
    "null": "",
    "{}": "",
    '{"messages": []}': "messages",
    '{"messages": [{"role": "user"}]}': "messages[0]",
    '{"messages": [{"content": "secret"}]}': "messages[0]",
    '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}': "messages[0]",
    '{"instruction": "secret", "output": 3}': "output",
    '{"instruction": "a", "output": "b", "history": [["secret"]]}': "history",
    '{"transcript": "secret"}': "transcript",
    '{"id": "../x", "transcript": "PATIENT: a OPÉRATEUR: b"}': "id",
    '{"id": ["secret"], "transcript": "PATIENT: a OPÉRATEUR: b"}': "id",
    '{"roster": ["secret"], "transcript": "PATIENT: a OPÉRATEUR: b"}': "roster",
    '{"roster": {"secret": "x"}, "transcript": "PATIENT: a OPÉRATEUR: b"}': "roster",
    '{"roster": {"doctor": 3}, "transcript": "PATIENT: a OPÉRATEUR: b"}': "roster.doctors",
    '{"labels": "secret", "transcript": "PATIENT: a OPÉRATEUR: b"}': "labels",
    '{"messages": [{"role": "user", "content": NaN}]}': "",
    '{"id": "a", "id": "b"}': "",
    '{"transcript": "\\ud800"}': "",
    '{"transcript": "secret': "",
    '{"n": ' + "9" * 5000 + "}": "",
    "[" * 100_000: "",
    '{"transcript": "\0"}': "",
}


@pytest.mark.parametrize("name", ["calls.jsonl", "calls.json"])
def test_bad_records_are_faults_that_name_the_field_and_not_the_words(tmp_path, name):
    outcomes = list(read_chats(write(tmp_path, lines(OPENAI) + "\n".join(BAD) + "\n" + lines(OPENAI), name)))
    assert [outcome.turns for outcome in (outcomes[0], outcomes[-1])] == [TURNS, TURNS]
    assert [(fault.line, fault.field) for fault in outcomes[1:-1]] == list(enumerate(BAD.values(), start=2))
    assert not any("secret" in str(fault) for fault in outcomes[1:-1])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    (call,) = read_chats(write(tmp_path, lines(OPENAI).encode(encoding)))
    assert call.turns == TURNS


LISTS = {
    "compact": json.dumps([OPENAI, SHAREGPT, ALPACA]),
    "indented": json.dumps([OPENAI, SHAREGPT, ALPACA], indent=2),
    "contained": json.dumps({"data": [OPENAI, SHAREGPT, ALPACA], "version": 1}),
    "values": "\n".join(json.dumps(record, indent=1) for record in (OPENAI, SHAREGPT, ALPACA)),
    "lines": lines(OPENAI, SHAREGPT["conversations"], ALPACA),
}


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("packed", [False, True])
def test_lists_and_values_in_a_row(tmp_path, form, packed):
    content = gzip.compress(LISTS[form].encode()) if packed else LISTS[form]
    calls = list(read_chats(write(tmp_path, content, "calls.json.gz" if packed else "calls.json")))
    assert [call.turns for call in calls] == [TURNS] * 3
    assert [call.row for call in calls] == [1, 2, 3]


def test_one_conversation_as_a_list_of_messages(tmp_path):
    (call,) = read_chats(write(tmp_path, json.dumps(OPENAI["messages"], indent=1), "calls.json"))
    assert call.turns == TURNS


def test_a_long_list_is_read_in_pieces(tmp_path):
    records = [OPENAI | {"id": str(number), "note": '}],"\\{[' * (number % 90)} for number in range(700)]
    calls = list(read_chats(write(tmp_path, json.dumps(records), "calls.json")))
    assert [call.id for call in calls] == [str(number) for number in range(700)]


def test_broken_elements_of_a_list_cost_only_themselves(tmp_path):
    good = [json.dumps(OPENAI | {"id": str(number)}, ensure_ascii=False) for number in range(6)]
    good[1] = good[1].replace('"1"', "NaN")
    good[3] = good[3].replace('"où ?"}]', '"où ?"}')
    good[4] = "17"
    outcomes = list(read_chats(write(tmp_path, f"[{', '.join(good)}]", "calls.json")))
    assert [call.id for call in outcomes if isinstance(call, RawCall)] == ["0", "2", "5"]
    assert [fault.line for fault in outcomes if isinstance(fault, Fault)][0] == 2
    cut = list(read_chats(write(tmp_path, f"[{good[0]}, {good[2][:-20]}", "calls.json")))
    assert [type(outcome) for outcome in cut] == [RawCall, Fault, Fault]


@pytest.mark.parametrize("name", ["calls.jsonl", "calls.json"])
def test_five_megabytes_are_refused_and_the_rest_is_read(tmp_path, name):
    huge = OPENAI | {"note": "x" * 5_000_000}
    records = [OPENAI, huge, OPENAI]
    content = lines(*records) if name.endswith("l") else json.dumps(records)
    first, fault, last = read_chats(write(tmp_path, content, name))
    assert (first.turns, fault.line, last.turns) == (TURNS, 2, TURNS)
    assert "2 MB" in fault.reason


def test_empty_damaged_and_missing_files(tmp_path):
    assert [fault.line for fault in read_chats(write(tmp_path, " \n"))] == [1]
    packed = gzip.compress(b"".join(json.dumps(OPENAI | {"id": str(n * n)}).encode() + b"\n" for n in range(3000)))
    outcomes = list(read_chats(write(tmp_path, packed[:-200], "cut.jsonl.gz")))
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Fault)] == ["the file is damaged from here on"]
    assert len(outcomes) > 1000
    with pytest.raises(DialogueError, match="cannot be read"):
        list(read_chats(tmp_path / "none.jsonl"))


def test_ids_become_safe_and_stay_apart(tmp_path):
    path = write(tmp_path, lines(*(OPENAI | {"id": name} for name in ("a b", "a#b", "a-b", "é"))))
    ids = [call.id for call in read_chats(path)]
    assert len(set(ids)) == 4
    assert ids[2:] == ["a-b", "é"]
    assert all(name.startswith("a-b-") for name in ids[:2])


def test_roster_takes_one_or_many():
    assert read_roster({"relative": "Luc", "relatives": ["Eve", " "], "cities": []}) == Roster(relatives=("Luc", "Eve"))


@given(
    st.lists(st.binary(min_size=1, max_size=60).map(lambda line: b"x" + line.replace(b"\n", b"")), max_size=6), st.integers(0, 6)
)
def test_junk_lines_are_faults_and_good_lines_survive(tmp_path_factory, junk, place):
    good = [lines(OPENAI | {"id": f"g{number}"}).strip().encode() for number in range(5)]
    rows = [good[0], *good[1:place], *junk, *good[max(1, place) :]]
    outcomes = list(read_chats(write(tmp_path_factory.mktemp("junk"), b"\n".join(rows))))
    assert [outcome.row if isinstance(outcome, RawCall) else outcome.line for outcome in outcomes] == list(
        range(1, len(rows) + 1)
    )
    assert [outcome.id for outcome in outcomes if isinstance(outcome, RawCall)] == [f"g{number}" for number in range(5)]


like_json = st.text(alphabet='[]{}":,\\ \n1aé', max_size=200).map(str.encode)


@given(st.one_of(st.binary(max_size=200), like_json), st.booleans())
def test_any_bytes_are_read_without_an_exception(tmp_path_factory, content, is_lines):
    path = write(tmp_path_factory.mktemp("bytes"), content, "calls.jsonl" if is_lines else "calls.json")
    outcomes = list(read_chats(path))
    assert all(isinstance(outcome, RawCall | Fault) for outcome in outcomes)
    assert outcomes or not content.strip(b"[], \n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "roster", "id", "instruction", "output", "labels"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, min_size=1, max_size=4))
def test_any_json_is_a_call_or_a_fault(tmp_path_factory, values):
    path = write(tmp_path_factory.mktemp("json"), "".join(json.dumps(value) + "\n" for value in values))
    assert len(list(read_chats(path))) == len(values)


def full_dialogue():
    """A dialogue that uses what few do."""
    evidence = (EvidenceMention(slot="fever", value=True, span=(0, 3)), EvidenceMention(slot="pain", value="9"))
    evidence += (EvidenceMention(slot="pain", value=9, negated=True),)
    return Dialogue(
        schema_version="1",
        id="full",
        family_id="f",
        lang="fr",
        turns=(
            Turn(speaker="patient", text="aïe 😀", i=0, evidence=evidence, start=0.1, end=2.0),
            Turn(speaker="operator", text="où ?", asks=("place", "onset")),
        ),
        labels=Labels(urgency="U1", specialty="urgences", differential=(("I21", 0.4),), red_flags=("a",), corrected=True),
        consent={"basis": "art9-2-h"},
        deid={"status": "done", "counts": {"NOM": 2}},
        routing={},
    )


def test_prepared_parquet_comes_back_exactly(tmp_path):
    pytest.importorskip("pyarrow")
    full = full_dialogue()
    bare = Dialogue(schema_version="1", id="bare", family_id="", lang="en", turns=full.turns[1:] + full.turns)
    dialogues = [full, bare, full.model_copy(update={"labels": None, "deid": {}, "split": "test", "hash": "sha256:0"})]
    path = tmp_path / "test.parquet"
    assert write_parquet(path, dialogues) == 3
    assert list(read_parquet(path)) == dialogues
    first = path.read_bytes()
    write_parquet(path, dialogues)
    assert path.read_bytes() == first


def test_parquet_answers_questions_and_others_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "test.parquet"
    write_parquet(path, [full_dialogue()])
    row = parquet.read_table(path).to_pylist()[0]
    assert (row["labels"]["urgency"], row["turns"][0]["text"], row["turns"][1]["asks"]) == ("U1", "aïe 😀", ["place", "onset"])
    other = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"id": [1]}), other)
    assert not is_prepared_parquet(other)
    with pytest.raises(DialogueError, match="no prepared dialogues"):
        list(read_parquet(other))


def test_a_changed_row_of_parquet_is_a_fault(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "test.parquet"
    write_parquet(path, [full_dialogue(), full_dialogue()])
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(table.schema.get_field_index("lang"), "lang", pa.array(["fr", "de"])), path)
    good, bad = read_parquet(path)
    assert isinstance(good, Dialogue)
    assert (bad.line, bad.field) == (2, "lang")
    assert isinstance(parse_dialogue("{}", "x", 1), Fault)
