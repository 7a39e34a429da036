"""A site's protocol is taken whole or told, line by line, what is wrong with it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmft import knowledge
from llmft.dialogue import Fault
from llmft.knowledge import Protocol, protocols
from llmft.prepare.readers.protocol_files import read_protocol_file, read_protocol_files

BUILT_IN = Path(str(resources.files(knowledge) / "protocols"))


def wordings(*texts: str) -> dict[str, list[str]]:
    return {split: [text] for split, text in zip(("train", "validation", "test"), texts, strict=True)}


def both(prefix: str = "", suffix: str = "") -> dict[str, Any]:
    return {lang: wordings(*(f"{prefix}{lang} {number}{suffix}" for number in range(3))) for lang in ("fr", "en")}


def protocol() -> dict[str, Any]:
    words = {lang: [f"{lang}{number}" for number in range(6)] for lang in ("fr", "en")}
    evidence = [
        {
            "slot": f"fact_{n}",
            "label": {"fr": "a", "en": "b"},
            "ask": both(suffix=" ?"),
            "present": both("yes "),
            "absent": both("no "),
        }
        for n in range(3)
    ]
    complaint = {
        "id": "sore_knee",
        "icd10": "M25.5",
        "names": {"fr": "mal au genou", "en": "sore knee"},
        "urgency": "U3",
        "words": words,
        "says": both(),
        "says_relative": both("{who} "),
        "evidence": evidence,
    }
    return {"specialty": "rhumatologie", "date": "2026-11", "source": "our clinic", "complaints": [complaint]}


def write(folder: Path, value: Any, name: str = "site.yaml") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def test_a_good_file_becomes_a_protocol(tmp_path):
    assert read_protocol_file(write(tmp_path, protocol())) == Protocol.model_validate(protocol())


def test_our_own_protocols_keep_the_rules():
    files = sorted(BUILT_IN.glob("*.yaml"))[::5]  # a few: YAML is slow to read
    assert len(files) == 4 and read_protocol_files(files) == (list(protocols()[::5]), [])


def change(value: Any, *path: Any, to: Any) -> Any:
    for part in path[:-1]:
        value = value[part]
    value[path[-1]] = to
    return value


WRONG = {
    ("specialty",): ("astrologie", "specialty", "'astrologie' is no specialty of knowledge/specialties.yaml"),
    ("date",): ("hier", "date", "String should match pattern"),
    ("complaints", 0, "icd10"): ("knee", "complaints[0].icd10", "String should match pattern"),
    ("complaints", 0, "urgncy"): ("U1", "complaints[0].urgncy", "Extra inputs are not permitted"),
    ("complaints", 0, "patient"): ({"age": [9, 3]}, "complaints[0].patient.age", "the ages are not two years"),
    ("complaints", 0, "evidence", 1, "slot"): ("fact_0", "complaints[0].evidence[1].slot", "'fact_0' is an earlier slot too"),
    ("complaints", 0, "evidence", 1, "urgency"): ("U4", "complaints[0].evidence[1].urgency", "a fact that is present cannot"),
    ("complaints", 0, "says_relative", "en"): (
        wordings("a", "b", "c"),
        "complaints[0].says_relative.en",
        "each wording must hold {who}",
    ),
    ("complaints", 0, "says", "fr"): (wordings("a", "b", "{x}"), "complaints[0].says.fr", "a wording in the first person"),
    ("complaints", 0, "evidence", 2, "ask", "fr"): (
        wordings("A", "b", "a "),
        "complaints[0].evidence[2].ask.fr",
        "a wording stands twice",
    ),
}


@pytest.mark.parametrize("path", WRONG)
def test_a_fault_names_line_and_field(tmp_path, path):
    wrong, field, reason = WRONG[path]
    value = protocol()
    change(value, *path, to=wrong)
    file = write(tmp_path, value)
    (fault,) = read_protocol_file(file)
    assert (fault.file, fault.field) == (str(file), field) and fault.reason.startswith(reason)
    key = path[-1] if path[-1] != "patient" else "age"
    assert f"{key}:" in file.read_text("utf-8").splitlines()[fault.line - 1]


def test_all_faults_are_told_at_once(tmp_path):
    value = protocol()
    change(value, "date", to=3)
    change(value, "complaints", 0, "evidence", 2, "slot", to="Fact 2")
    del value["complaints"][0]["names"]["en"]
    faults = read_protocol_file(write(tmp_path, value))
    assert [(fault.field, fault.reason.split(";")[0][:14]) for fault in faults] == [
        ("date", "Input should b"),
        ("complaints[0].names.en", "Field required"),
        ("complaints[0].evidence[2].slot", "String should "),
    ]
    assert len({fault.line for fault in faults}) == 3


BAD = {
    "": (1, "the file is empty"),
    "- a": (1, "Input should be a valid dictionary"),
    "a: 1\nb: [1\n": (3, "not YAML: "),
    "a: 1\n\tb: 2\n": (2, "not YAML: "),
    "date: 1\na: 1\ndate: 2\n": (3, "the key 'date' stands twice in one place"),
    "a: &x [1]\nb: [*x, *x]\n": (1, "aliases (&name, *name) are not taken"),
    "a: !!python/object:os.system 1": (1, "not YAML: could not determine a constructor"),
    "a: !!bool x": (1, "not YAML that can be read (KeyError)"),
    "a: 2026-13-45": (1, "not YAML that can be read (ValueError)"),
    "a: \0": (1, "a NUL character stands in the line"),
    "a: \x07": (1, "not YAML that can be read (ReaderError)"),
    "[" * 1000: (1, "not YAML that can be read (RecursionError)"),
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_protocol_is_a_fault(tmp_path, text):
    line, reason = BAD[text]
    fault = read_protocol_file(write(tmp_path, text))[0]
    assert fault.line == line and fault.reason.startswith(reason)


def test_a_complaint_stands_in_one_file_only(tmp_path):
    first, other = write(tmp_path, protocol(), "a.yaml"), write(tmp_path, protocol(), "b.yaml")
    found, faults = read_protocol_files([first, other])
    assert len(found) == 1
    assert faults == [Fault(str(other), 1, "complaints", f"'sore_knee' is a complaint of {first} too; rename one")]


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["specialty", "complaints", "date", "id", 1]), inner, max_size=3)
    ),
)


@given(YAML.map(yaml.safe_dump) | st.text("a:-[]{}&*!?|>#%@,'\" \n\t1", max_size=40))
def test_any_text_is_told_to_be_no_protocol(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "site.yaml"
    path.write_text(text, "utf-8")
    faults = read_protocol_file(path)
    assert isinstance(faults, tuple) and faults and all(isinstance(fault, Fault) and fault.line >= 1 for fault in faults)
