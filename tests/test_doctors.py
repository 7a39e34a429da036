"""Doctors' rosters from CSV and from FHIR: the same doctors, specialties of ours, faults named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmft
from llmft.dialogue import Fault
from llmft.doctors.roster_file import (
    Doctor,
    Slot,
    as_roster_json,
    find_language,
    find_mode,
    find_specialty,
    guess_columns,
    read_doctors,
)
from llmft.vocabulary import specialties

SAMPLE = Path(llmft.__file__).parent.parent / "data" / "sample"
HEADER = "Identifiant;Civilité;Prénom;Nom;Spécialité;Site;Modes;Langues;Âge min;Âge max;Début;Fin;Statut\n"
ROW = (
    "d-1;Dr;Ada;Exemple;Cardiologie et maladies vasculaires (SM);Nord;cabinet, visio;français, en;16;;"
    "2026-12-01T09:00;2026-12-01T09:20;libre\n"
)
ADA = Doctor(
    "d-1",
    "Dr Ada Exemple",
    ("cardiologie",),
    "Nord",
    ("on_site", "video"),
    ("fr", "en"),
    16,
    None,
    (Slot("d-1:2026-12-01T09:00", "2026-12-01T09:00", "2026-12-01T09:20", "free"),),
)


def write(folder: Path, content: str | bytes, name: str = "doctors.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_row_becomes_a_doctor(tmp_path):
    assert list(read_doctors(write(tmp_path, HEADER + ROW))) == [ADA]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_encodings_are_guessed(tmp_path, separator):
    text = separator.join(["nom", "spécialité"]) + "\n" + separator.join(["Zoé Été", "pédiatrie"]) + "\n"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (doctor,) = read_doctors(write(tmp_path, text.encode(encoding)))
        assert (doctor.display_name, doctor.specialties, doctor.slots) == ("Zoé Été", ("pediatrie",), ())


def test_rows_of_one_doctor_are_put_together(tmp_path):
    later = ROW.replace("T09", "T11").replace("libre", "Occupé")
    (doctor,) = read_doctors(write(tmp_path, HEADER + ROW + "\n" + later))
    busy = Slot("d-1:2026-12-01T11:00", "2026-12-01T11:00", "2026-12-01T11:20", "busy")
    assert doctor == replace(ADA, slots=(*ADA.slots, busy))


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path, "Qui,Quoi\nDr X,ORL\n")
    assert [row.reason for row in read_doctors(path)] == [
        "the header names no doctor or no specialty; call their columns nom and specialite, or name and specialty"
    ]
    (doctor,) = read_doctors(path, {"display_name": "Qui", "specialties": "Quoi"})
    assert (doctor.display_name, doctor.specialties) == ("Dr X", ("orl",))
    assert guess_columns(["RPPS", "Médecin", "nom complet", "x"]) == {"doctor_id": "RPPS", "display_name": "Médecin"}


def test_a_doctor_without_id_gets_the_same_one_each_time(tmp_path):
    ids = [next(iter(read_doctors(write(tmp_path, f"nom,specialite\n{name},orl\n")))).doctor_id for name in ("Zoé", "zoe", "Léa")]
    assert ids[0] == ids[1] != ids[2] and ids[0].startswith("d_")


def test_dates_in_the_french_form(tmp_path):
    text = "nom,specialite,date,debut,fin\nA,orl,03/12/2026,9h05,09:20\n"
    (doctor,) = read_doctors(write(tmp_path, text))
    assert (doctor.slots[0].start, doctor.slots[0].end) == ("2026-12-03T09:05", "2026-12-03T09:20")


BAD_CELLS = {
    ("Cardiologie et maladies vasculaires (SM)", "astrologie"): (
        "specialties",
        "'astrologie' is no specialty; add it as an alias",
    ),
    ("Cardiologie et maladies vasculaires (SM)", ""): ("specialties", "the doctor has no specialty"),
    ("Dr;Ada;Exemple", ";;"): ("display_name", "the doctor has no name"),
    (";16;;", ";seize;;"): ("age_min", "'seize' is no whole number of years from 0 to 130"),
    (";16;;", ";16;3;"): ("age_max", "the highest age is below the lowest"),
    ("visio", "fax"): ("modes", "'cabinet, fax' is none of on_site, video, phone, home"),
    (", en;", ", klingon;"): ("languages", "'français, klingon' is no language code such as fr"),
    ("T09:20", "T08:20"): ("end", "the slot does not end after it starts"),
    ("T09:20", "T09:20Z"): ("end", "the slot does not end after it starts"),
    ("2026-12-01T09:00", "2026-02-30T09:00"): ("start", "'2026-02-30T09:00' is no time such as 2026-12-01T09:00"),
    ("libre", "peut-être"): ("status", "'peut-être' is neither free nor busy"),
    ("Nord", "Sud"): ("doctor_id", "'d-1' stands on an earlier row with other facts"),
    ("Nord", "Nord"): ("slot_id", "the slot stands on an earlier row"),
}


@pytest.mark.parametrize("change", BAD_CELLS)
def test_a_bad_row_is_a_fault_and_the_rest_goes_on(tmp_path, change):
    field, reason = BAD_CELLS[change]
    assert change[0] in ROW
    path = write(tmp_path, HEADER + ROW + ROW.replace(*change))
    fault, doctor = read_doctors(path)
    assert (fault.file, fault.line, fault.field) == (str(path), 3, field) and fault.reason.startswith(reason)
    assert doctor == ADA


@pytest.mark.parametrize(
    ("title", "specialty"),
    [
        ("Cardiologie et maladies vasculaires (SM)", "cardiologie"),
        ("Qualifié en médecine générale", "medecine_generale"),
        ("Spécialiste en Gynécologie-obstétrique", "gynecologie_obstetrique"),
        ("Endocrinologie, diabétologie, nutrition", "endocrinologie_diabetologie"),
        ("O.R.L et chirurgie cervico-faciale", None),
        ("Chirurgie orthopédique et traumatologie", "orthopedie_traumatologie"),
        ("ophthalmology", "ophtalmologie"),
        ("inconnu", None),
        ("", None),
    ],
)
def test_official_titles_mean_our_specialties(title, specialty):
    assert find_specialty(title) == specialty


def test_modes_and_languages():
    assert [find_mode(name) for name in ("Téléconsultation", "À domicile", "fax")] == ["video", "home", None]
    assert [find_language(name) for name in ("Français", "fr-FR", "en", "klingon", "")] == ["fr", "fr", "en", None, None]


def resource(kind: str, key: str, /, **elements: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": key, **elements}


def reference(target: str) -> dict[str, str]:
    return {"reference": target}


LOCATION = resource("Location", "north", name="Nord")
ADA_PERSON = resource(
    "Practitioner",
    "p1",
    name=[{"family": "Exemple", "given": ["Ada"], "prefix": ["Dr"]}],
    communication=[{"coding": [{"code": "fr-FR", "display": "Français"}]}, {"text": "anglais"}],
)
ROLE = resource(
    "PractitionerRole",
    "d-1",
    practitioner=reference("Practitioner/p1"),
    specialty=[{"coding": [{"code": "SM04", "display": "Cardiologie et maladies vasculaires (SM)"}]}],
    location=[reference("Location/north")],
)
SCHEDULE = resource(
    "Schedule", "s1", actor=[reference("PractitionerRole/d-1")], serviceType=[{"text": "cabinet"}, {"text": "visio"}]
)
SLOT = resource(
    "Slot",
    "t1",
    schedule=reference("Schedule/s1"),
    status="free",
    start="2026-12-01T09:00:00+01:00",
    end="2026-12-01T09:20:00+01:00",
)
ALL = [SLOT, LOCATION, ADA_PERSON, ROLE, SCHEDULE]
FHIR_ADA = replace(ADA, age_min=None, slots=(Slot("t1", "2026-12-01T09:00+01:00", "2026-12-01T09:20+01:00", "free"),))


def bundle(folder: Path, *resources: Any) -> Path:
    return write(folder, json.dumps({"resourceType": "Bundle", "entry": [{"resource": r} for r in resources]}), "d.json")


def test_a_bundle_a_list_and_ndjson_hold_the_same_doctor(tmp_path):
    lines = "\n".join(json.dumps(one) for one in ALL)
    for path in (bundle(tmp_path, *ALL), write(tmp_path, json.dumps(ALL), "l.json"), write(tmp_path, lines, "d.ndjson")):
        assert list(read_doctors(path)) == [FHIR_ADA]


@pytest.mark.parametrize("target", ["https://a.fr/fhir/Practitioner/p1", "Practitioner/p1/_history/3", "urn:uuid:77"])
def test_references_are_followed(tmp_path, target):
    role = {**ROLE, "practitioner": reference(target)}
    entries = [{"resource": r, **({"fullUrl": "urn:uuid:77"} if r is ADA_PERSON else {})} for r in (*ALL[:3], role, SCHEDULE)]
    assert list(read_doctors(write(tmp_path, json.dumps({"entry": entries}), "d.json"))) == [FHIR_ADA]


def test_a_schedule_of_a_person_goes_to_the_role_at_its_place(tmp_path):
    south = {**ROLE, "id": "d-2", "location": [reference("Location/south")]}
    both = {**SCHEDULE, "actor": [reference("Practitioner/p1"), reference("Location/south")]}
    doctors = list(
        read_doctors(bundle(tmp_path, SLOT, LOCATION, resource("Location", "south", name="Sud"), ADA_PERSON, ROLE, south, both))
    )
    assert [(doctor.doctor_id, doctor.site, len(doctor.slots)) for doctor in doctors] == [("d-1", "Nord", 0), ("d-2", "Sud", 1)]
    alone = {**SCHEDULE, "actor": [reference("Practitioner/p1")]}
    assert list(read_doctors(bundle(tmp_path, SLOT, LOCATION, ADA_PERSON, ROLE, alone))) == [FHIR_ADA]
    faults = [row for row in read_doctors(bundle(tmp_path, SLOT, ADA_PERSON, ROLE, south, alone)) if isinstance(row, Fault)]
    assert [(fault.line, fault.field) for fault in faults] == [(5, "Schedule.actor")]


def test_statuses_become_free_or_busy(tmp_path):
    kinds = ("free", "busy", "busy-unavailable", "busy-tentative", "entered-in-error")
    slots = [{**SLOT, "id": kind, "status": kind} for kind in kinds]
    (doctor,) = read_doctors(bundle(tmp_path, *ALL[1:], *slots))
    assert [(slot.id, slot.status) for slot in doctor.slots] == [("free", "free")] + [(kind, "busy") for kind in kinds[1:4]]


def test_a_specialty_may_stand_with_the_qualifications_and_an_inactive_role_is_left_out(tmp_path):
    learnt = {**ADA_PERSON, "qualification": [{"code": {"text": "Diplôme d'État"}}, {"code": {"text": "Cardiologie"}}]}
    bare = {**ROLE, "specialty": []}
    assert list(read_doctors(bundle(tmp_path, SLOT, LOCATION, learnt, bare, SCHEDULE))) == [FHIR_ADA]
    assert list(read_doctors(bundle(tmp_path, *ALL[:3], {**ROLE, "active": False}, SCHEDULE))) == []


BAD_RESOURCES = {
    "Slot.schedule": ({**SLOT, "schedule": reference("Schedule/x")}, "the schedule is not in this file"),
    "Slot.end": ({**SLOT, "end": SLOT["start"]}, "the slot does not end after it starts"),
    "Slot.start": ({**SLOT, "start": "2026-12-01T09:00:00"}, "Input should have timezone info"),
    "Slot.status": ({**SLOT, "status": "maybe"}, "Input should be 'busy'"),
    "PractitionerRole.specialty[0]": (
        {**ROLE, "id": "d-2", "specialty": [{"text": "astrologie"}]},
        "'astrologie' is no specialty",
    ),
    "PractitionerRole.specialty": ({**ROLE, "id": "d-2", "specialty": []}, "the doctor has no specialty"),
    "PractitionerRole.practitioner": ({**ROLE, "id": "d-2", "practitioner": reference("x/y")}, "the practitioner has no name"),
    "Practitioner": (resource("Practitioner", "p2"), "no PractitionerRole names this practitioner"),
    "Schedule.actor": (
        {**SCHEDULE, "id": "s2", "actor": [reference("Location/north")]},
        "the actors name no one PractitionerRole of this file",
    ),
    "Schedule.id": (SCHEDULE, "the id appeared on an earlier resource"),
    "Location.id": ({"resourceType": "Location"}, "the resource has neither an id nor a fullUrl"),
    "resourceType": ({"id": "x"}, "not a FHIR resource"),
}


@pytest.mark.parametrize("field", BAD_RESOURCES)
def test_a_bad_resource_is_a_fault_and_the_rest_goes_on(tmp_path, field):
    bad, reason = BAD_RESOURCES[field]
    rest = ALL[1:] if bad.get("resourceType") == "Slot" else ALL
    path = bundle(tmp_path, *rest, bad)
    fault, doctor = read_doctors(path)
    assert (fault.file, fault.line, fault.field) == (str(path), len(rest) + 1, field) and fault.reason.startswith(reason)
    assert doctor.doctor_id == "d-1"


def test_the_roster_file_has_the_names_of_the_contract():
    roster = json.loads(as_roster_json([ADA]))
    assert roster == {
        "schema_version": "1",
        "doctors": [
            {
                "doctor_id": "d-1",
                "display_name": "Dr Ada Exemple",
                "specialty": ["cardiologie"],
                "site": "Nord",
                "modes": ["on_site", "video"],
                "languages": ["fr", "en"],
                "age_min": 16,
                "age_max": None,
                "slots": [
                    {"id": "d-1:2026-12-01T09:00", "start": "2026-12-01T09:00", "end": "2026-12-01T09:20", "status": "free"}
                ],
            }
        ],
    }


def test_the_two_samples_hold_the_same_invented_doctors():
    from_csv, from_fhir = (list(read_doctors(SAMPLE / name)) for name in ("doctors.csv", "doctors.fhir.json"))
    assert len(from_csv) == 12 and not any(isinstance(row, Fault) for row in (*from_csv, *from_fhir))
    bare = [
        [
            replace(
                d,
                age_min=None,
                age_max=None,
                slots=tuple(replace(slot, id="") for slot in sorted(d.slots, key=lambda slot: slot.start)),
            )
            for d in doctors
        ]
        for doctors in (from_csv, from_fhir)
    ]
    assert bare[0] == bare[1]
    assert {specialty for d in from_csv for specialty in d.specialties} <= set(specialties())


CELLS = st.sampled_from(ROW.strip().split(";") + ['"', "2026", "\0", "=1+1"]) | st.text(max_size=5)


@given(st.lists(st.lists(CELLS, max_size=14).map(";".join), max_size=5).map("\n".join), st.binary(max_size=10))
def test_any_rows_are_read(tmp_path_factory, rows, tail):
    path = write(tmp_path_factory.mktemp("any"), HEADER.encode() + rows.encode("utf-8", "surrogatepass") + tail)
    assert all(isinstance(row, Doctor | Fault) for row in read_doctors(path))


JSON = st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
RESOURCES = st.builds(
    lambda base, key, value: {**base, key: value},
    st.sampled_from(ALL),
    st.sampled_from(sorted({key for one in ALL for key in one})),
    JSON,
)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(ALL) | RESOURCES | JSON, max_size=6) | JSON)
def test_any_resources_are_read(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("any"), json.dumps(value), "d.json")
    assert all(isinstance(row, Doctor | Fault) for row in read_doctors(path))
