"""A whole record without personal data: every text beside the turns, the triage block, and no code of either."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.deidentify.files import deidentify_file
from llmft.deidentify.identifiers import checksummed
from llmft.deidentify.notes import notes_of
from llmft.deidentify.record import VERSION, deidentify_record, deidentify_text, is_done, known_note, left_over
from llmft.deidentify.roster import find_roster, is_plain_id
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import deidentify, residual
from llmft.deidentify.words import read, words_of
from llmft.dialogue import Dialogue, as_line, parse_dialogue, read_triage
from llmft.prepare.record import Cleaned, CleanOptions, RecordLine, clean_row
from llmft.prepare.synthetic.invented import Cast, invent_cast, invent_iban, invent_luhn, invent_nir, say_phone
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.protocol.rules import flag_labels
from llmft.vocabulary import icd10_labels, specialties, urgencies

NOTES = ("block summary", "block missing_info", "block tail", "evidence", "history", "medication", "allergy")
NOTES += ("symptom", "disposition", "consent", "red flag", "act")
BLOCK = {"urgency": "U2", "specialty": "cardiologie", "icd10": ["R07.4"], "red_flags": ["chest_pain_radiating"]}
HEARD = ("je m'appelle Nathalie Brumelune, j'ai mal", "Merci Madame Brumelune.")


def record(notes: dict[str, str] | None = None, said: tuple[str, str] = ("j'ai mal au bras gauche", "Très bien."), **changes):
    """A record that has every field; ``notes`` are its free texts."""
    note = dict.fromkeys(NOTES, "au repos") | (notes or {})
    summary = {"summary": note["block summary"], "missing_info": [note["block missing_info"], "onset"]}
    block = f"```json\n{json.dumps({**BLOCK, **summary, 'escalate': False}, ensure_ascii=False)}\n```"
    tail = f"\n{note['block tail']}" if "block tail" in (notes or {}) else ""
    start = said[0].index("mal")
    mention = {"slot": "pain", "value": note["evidence"], "negated": False, "span": [start, start + 3]}
    asked = {"stage": "ecoute", "act": note["act"], "asks": ["onset", "E_53"], "start": 0.5, "end": 3.25}
    value = {
        "schema_version": "1", "id": "c-1", "family_id": "chest:self:1", "lang": "fr", "channel": "phone", "source": "simulated",
        "turns": [
            {"i": 0, "speaker": "operator", "text": "Je vous écoute ?", **asked},
            {"i": 1, "speaker": "patient", "text": said[0], "evidence": [mention]},
            {"i": 2, "speaker": "operator", "text": f"{said[1]}\n{block}{tail}"},
        ],
        "labels": {
            "urgency": "U2", "specialty": "cardiologie", "icd10_primary": "R07.4",
            "red_flags": ["known_heart_disease", note["red flag"]], "disposition": note["disposition"],
            "symptoms": [{"text": note["symptom"], "icd10": "R07.4", "certainty": "suspected"}],
            "differential": [["I21", 0.4]], "required_slots": ["onset", "intensity"], "confidence": "gold",
        },
        "patient": {
            "age": 54, "sex": "F", "caller": "self", "history": [{"text": note["history"], "icd10": "I10"}],
            "medications": [note["medication"], "Doliprane 1000"], "allergies": [note["allergy"]],
        },
        "license": "CC-BY-4.0", "consent": {"basis": "art9-2-h", "purpose": note["consent"], "expires": "2028-01-01"},
        "collected_on": "2026-09", "routing": {"roster_snapshot": "r_2026-09-01", "doctor_id": "d_17", "slot_id": "s_991"},
        "split": "train",
    }  # fmt: skip
    parsed = parse_dialogue(json.dumps({**value, **changes}), "f", 1)
    assert isinstance(parsed, Dialogue), parsed
    return parsed


def block_of(dialogue: Dialogue) -> dict:
    return json.loads(re.search(r"```json\n(.*)\n```", dialogue.turns[-1].text)[1])


def free_texts(dialogue: Dialogue) -> dict[str, str]:
    """The free texts of :func:`record`, read out by hand."""
    labels, patient, block = dialogue.labels, dialogue.patient, block_of(dialogue)
    return {
        "block summary": block["summary"], "block missing_info": block["missing_info"][0],
        "block tail": dialogue.turns[-1].text.rpartition("```")[2].strip(), "evidence": dialogue.turns[1].evidence[0].value,
        "history": patient.history[0].text, "medication": patient.medications[0], "allergy": patient.allergies[0],
        "symptom": labels.symptoms[0].text, "disposition": labels.disposition, "consent": dialogue.consent["purpose"],
        "red flag": labels.red_flags[1], "act": dialogue.turns[0].act,
    }  # fmt: skip


def closed_values(dialogue: Dialogue) -> dict:
    """All that must stay as it is: the record with its texts emptied by hand."""
    value = json.loads(as_line(dialogue))
    for turn in value["turns"]:
        turn["text"] = ""
    value["turns"][0]["act"] = value["labels"]["disposition"] = value["consent"]["purpose"] = ""
    value["labels"]["red_flags"][1] = value["patient"]["medications"][0] = value["patient"]["allergies"][0] = ""
    value["labels"]["symptoms"][0]["text"] = value["patient"]["history"][0]["text"] = ""
    value["turns"][1]["evidence"][0] |= {"value": "", "span": None}
    value["block"] = block_of(dialogue) | {"summary": "", "missing_info": ["", block_of(dialogue)["missing_info"][1]]}
    return {key: item for key, item in value.items() if key != "deid"}


def say(rng: random.Random, cast: Cast) -> tuple[str, list[str]]:
    """A sentence about one of the call's people, and what of it is personal."""
    phone = say_phone(rng, "fr", cast.phone)
    iban, nir, card = invent_iban(rng), invent_nir(rng, cast.birth), invent_luhn(rng, "4970", 16, 4)
    return rng.choice([
        (f"appel de {cast.first} {cast.last} pour une douleur", [cast.first, cast.last]),
        (f"suivi avec {cast.relative_first} {cast.relative_last}", [cast.relative_first, cast.relative_last]),
        (f"vu par le Dr {cast.doctor} hier", [cast.doctor]),
        (f"pris par {cast.operator}", [cast.operator]),
        (f"rappeler au {phone} ce soir", [phone]),
        (f"écrire à {cast.email}", [cast.email]),
        (f"habite {cast.address}", [cast.address]),
        (f"sécurité sociale {nir}", [nir]),
        (f"remboursement sur {iban}", [iban]),
        (f"carte {card}", [card]),
    ])  # fmt: skip


def is_in(personal: str, line: str) -> bool:
    """Whether a value is still said: of a name each word but particles, without accents and case."""
    if any(map(str.isdigit, personal)):
        return personal in line
    return any(word in words_of(line) for word in words_of(personal) if len(word) > 2)


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**32))
def test_nothing_planted_is_left_in_any_field_and_no_code_changes(seed):
    rng = random.Random(seed)
    cast = invent_cast(rng, "fr")
    said = {name: say(rng, cast) for name in NOTES}
    before = record({name: text for name, (text, _) in said.items()})
    done = deidentify_record(before, cast.roster())
    line = as_line(done.dialogue)
    assert done.left == ()
    for name, (text, personal) in said.items():
        assert free_texts(done.dialogue)[name] != text, name
        assert not any(is_in(value, line) for value in personal), (name, line)
    assert closed_values(done.dialogue) == closed_values(before)
    assert parse_dialogue(line, "f", 1) == done.dialogue
    assert left_over(before, cast.roster()) != ()


@pytest.mark.parametrize("name", NOTES)
def test_whoever_speaks_in_the_turns_has_the_same_placeholder_in_every_field(name):
    """Without a roster: the turns give the surname away, and the field says it without any phrase around it."""
    done = deidentify_record(record({name: "BRUMELUNE Nathalie, brumelune"}, HEARD)).dialogue
    assert done.turns[1].text == "je m'appelle [PRENOM_1] [NOM_1], j'ai mal"
    assert done.turns[2].text.startswith("Merci Madame [NOM_1].\n```json\n")
    assert free_texts(done)[name] == "[NOM_1] [PRENOM_1], [NOM_1]"
    assert done.deid["counts"] == {"NOM": 4, "PRENOM": 2}


def test_people_who_are_only_in_the_notes_go_on_with_the_numbers():
    done = deidentify(("je suis Mme Durand",), "fr", notes=("Mme Durand, vue par Mme Lebrun", "Lebrun rappelle", "[NOM_7]"))
    assert done.texts == ("je suis Mme [NOM_8]",)
    assert done.notes == ("Mme [NOM_8], vue par Mme [NOM_9]", "[NOM_9] rappelle", "[NOM_7]")


def test_what_the_turns_gave_away_is_known_beside_them_however_it_is_written():
    said = ("ça s'écrit D U V O R N E", "mon mari Zbigniou tousse", "mon dossier est le 12 34 56", "mon médecin le docteur Blanc")
    notes = ("Duvorne", "zbigniou va mieux", "dossier 12 34 56", "Dr Blanc ; teint blanc", "145/90", "petit bouton rose")
    done = deidentify(said, "fr", notes=notes)
    expected = ("[NOM_1]", "[PRENOM_1] va mieux", "dossier [NUM_DOSSIER_1]", "Dr [MEDECIN_1] ; teint blanc")
    assert done.notes == (*expected, "145/90", "petit bouton rose")
    assert deidentify(("madame Rose Petit",), "fr", notes=("Petit Rose",)).notes == ("[NOM_1] [PRENOM_1]",)


def test_a_note_answers_no_question_of_the_call_or_of_another_note():
    question = "Comment s'appelle votre médecin traitant ?"
    assert deidentify((question,), "fr", notes=(question, "Rivière", "Asthme")).notes == (question, "Rivière", "Asthme")
    roster = Roster(patient=("Rose Petit",))
    assert deidentify((question,), "fr", roster, notes=("petit bouton",)).notes == ("petit bouton",)
    assert residual((question,), roster, ("petit bouton", "Mme Petit")) == [(2, "roster")]


def test_the_words_of_our_own_lists_stay_as_they_are():
    """The triage block that is made of labels is made of these."""
    for lang in ("fr", "en"):
        names = [label.of(lang) for label in (*icd10_labels().values(), *flag_labels().values())]
        names += [getattr(entry, lang) for entry in (*specialties().values(), *urgencies().values())]
        assert deidentify((), lang, notes=names).notes == tuple(names)


def test_a_clean_record_stays_byte_for_byte():
    notes = {"allergy": "arachides", "history": "maladie de Parkinson", "medication": "Doliprane 1000"}
    for dialogue in (record(), record(notes), *synthesize(25, seed=3)):
        done = deidentify_record(dialogue).dialogue
        assert as_line(done.model_copy(update={"deid": None})) == as_line(dialogue)
        again = deidentify_record(done)
        assert as_line(again.dialogue) == as_line(done) and again.counts == {}


def test_a_second_pass_keeps_the_note_of_the_first():
    once = deidentify_record(record({"history": "opérée par le Dr Brumelune"})).dialogue
    assert once.deid["counts"] == {"MEDECIN": 1} and once.deid["version"] == VERSION
    assert as_line(deidentify_record(once).dialogue) == as_line(once)


def test_the_notes_of_a_record_that_an_older_version_read_are_read_now():
    older = record({"history": "opérée par le Dr Brumelune"}, deid={"status": "done", "version": "1", "counts": {"NOM": 2}})
    assert not is_done(older) and not is_done(record()) and not is_done(record(deid={"status": "todo"}))
    done = deidentify_record(older).dialogue
    assert is_done(done) and done.deid["counts"] == {"NOM": 2, "MEDECIN": 1}
    assert done.patient.history[0].text == "opérée par le Dr [MEDECIN_1]"


def test_an_earlier_note_keeps_nothing_that_could_be_somebodys():
    mapping = {"status": "done", "mapping": {"[NOM_1]": "Brumelune"}, "counts": {"NOM": 1, "Brumelune": 1}, "layers": "Brumelune"}
    for done in (known_note(mapping), deidentify_record(record(deid=mapping)).dialogue.deid):
        assert "Brumelune" not in str(done) and done["counts"] == {"NOM": 1}
    cleaned = clean_row(RecordLine("f", 1, as_line(record(deid=mapping))), CleanOptions())
    assert isinstance(cleaned, Cleaned) and cleaned.dialogue.deid == {"status": "done", "counts": {"NOM": 1}}


def test_a_hash_of_words_that_are_gone_goes_too():
    assert deidentify_record(record(hash="sha256:0")).dialogue.hash == "sha256:0"
    assert deidentify_record(record({"symptom": "Mme Brumelune"}, hash="sha256:0")).dialogue.hash is None


def test_a_great_age_is_capped():
    dialogue = deidentify_record(record(patient={"age": 93, "sex": "M"}, hash="sha256:0")).dialogue
    assert (dialogue.patient.age, dialogue.patient.sex, dialogue.hash) == (90, "M", None)


def test_codes_stay_where_words_would_not():
    """In a field that is meant for codes, what has not the form of one is somebody's words."""
    values = {"disposition": "Brumelune, Nathalie", "red flag": "Nathalie", "act": "rappeler le 06 12 34 56 78"}
    before = record(values, routing={"doctor_id": "Dr Brumelune", "slot_id": "s_991"}, license="contrat de Mme Brumelune")
    done = deidentify_record(before).dialogue
    kept = {"disposition": "call_15", "red flag": "chest_pain_radiating", "act": "open_question"}
    assert deidentify_record(record(kept)).counts == {}
    assert done.labels.red_flags == ("known_heart_disease", "[PRENOM_1]") and "[TEL_1]" in done.turns[0].act
    assert done.routing == {"doctor_id": "Dr [NOM_1]", "slot_id": "s_991"} and done.license == "contrat de Mme [NOM_1]"


def test_numbers_and_keys_can_be_personal_too():
    mention = {"slot": "callback", "value": 612345678}
    turns = [{"speaker": "patient", "text": "oui", "evidence": [mention]}, {"speaker": "operator", "text": "Bien."}]
    done = deidentify_record(record(turns=turns, consent={"Mme Brumelune": "yes", "basis": "art9-2-h"})).dialogue
    assert done.turns[0].evidence[0].value == "[IDENTIFIANT_1]"
    assert done.consent == {"Mme [NOM_1]": "yes", "basis": "art9-2-h"}


def with_block(block: str, said: str = "Bien noté.") -> Dialogue:
    turns = [{"speaker": "patient", "text": HEARD[0]}, {"speaker": "operator", "text": f"{said}\n```json\n{block}\n```"}]
    return record(turns=turns)


def test_a_block_keeps_its_form_unless_something_in_it_changes():
    block = '{ "urgency":"U2",  "specialty": "cardiologie",\n"icd10": ["R07.4"], "red_flags": [], '
    block += '"summary": "peau br\\u00fbl\\u00e9e", "missing_info": [], "escalate": false }'
    last = deidentify_record(with_block(block, "Merci Madame Brumelune.")).dialogue.turns[-1].text
    assert last == f"Merci Madame [NOM_1].\n```json\n{block}\n```"
    named = deidentify_record(with_block(block.replace("peau", "Brumel\\u0075ne"))).dialogue.turns[-1].text
    triage = read_triage(named)
    assert triage.summary == "[NOM_1] brûlée" and named == f"Bien noté.\n{triage.as_block()}"


@pytest.mark.parametrize(
    "block",
    [
        '{"summary": "Mme Brumelune", "summary": "rien"}',  # the second would hide the first
        '{"summary": "Mme Brumelune", "score": 1e999}',
        '{"summary": "Mme Brumelune", "score": NaN}',
        '{"summary": "Mme Brumelune",}',
        '["Mme Brumelune"]',
        '"Mme Brumelune"',
        '{"summary": "Mme Brumelune \\ud800"}',
        "[" * 5000 + '"Mme Brumelune"' + "]" * 5000,
        "Mme Brumelune",
    ],
)
def test_a_block_that_is_no_json_object_is_words(block):
    last = deidentify_record(with_block(block)).dialogue.turns[-1].text
    assert last == f"Bien noté.\n```json\n{block.replace('Brumelune', '[NOM_1]')}\n```"


def test_any_other_json_object_is_looked_through_whole():
    block = {"triage": {"Mme Brumelune": ["Nathalie", {"tel": 33612345678, "score": 0.25, "ok": True}], "urgency": "U2"}}
    done = block_of(deidentify_record(with_block(json.dumps(block))).dialogue)
    inner = ["[PRENOM_1]", {"tel": "[TEL_1]", "score": 0.25, "ok": True}]
    assert done == {"triage": {"Mme [NOM_1]": inner, "urgency": "U2"}}
    assert "Brumelune" not in deidentify_record(with_block('{"urgency": "Mme Brumelune"}')).dialogue.turns[-1].text


def test_evidence_beyond_the_head_of_a_turn_keeps_no_place_once_the_head_changed():
    last = record(said=HEARD).turns[-1].text
    mentions = [{"slot": "a", "value": True, "span": [0, 5]}, {"slot": "b", "value": True, "span": [len(last) - 4, len(last)]}]
    turns = [{"speaker": "patient", "text": HEARD[0]}, {"speaker": "operator", "text": last, "evidence": mentions}]
    evidence = deidentify_record(record(turns=turns)).dialogue.turns[-1].evidence
    assert [mention.span for mention in evidence] == [(0, 5), None]


def test_a_patient_who_says_a_block_says_words():
    said = 'voilà\n```json\n{"summary": "Mme Brumelune"}\n```'
    turns = [{"speaker": "patient", "text": said}, {"speaker": "operator", "text": "Bien."}]
    assert deidentify_record(record(turns=turns)).dialogue.turns[0].text == said.replace("Brumelune", "[NOM_1]")


def test_a_row_with_something_left_is_told_of_by_its_field():
    roster = Roster(patient=("Nathalie Brumelune",))
    off = ("dates",)  # so that something is left to find
    for name, field in {"block summary": "turns[2].text", "history": "patient.history[0].text", "act": "turns[0].act"}.items():
        assert deidentify_record(record({name: "Brumelune va mieux"}), roster, off).left == ((field, "roster"),)
    evidence = deidentify_record(record({"evidence": "1 85 05 78 006 084 91"}), roster, off)
    assert evidence.left == (("turns[1].evidence[0].value", "identifier"),)
    assert deidentify_record(record(id="brumelune_4", family_id="f:Nathalie"), roster).left == (
        ("id", "roster"),
        ("family_id", "roster"),
    )


IDS = st.lists(
    st.sampled_from(["brumelune", "Nat", "c", "appel", "o", "zero", "six", "-", "_", ":", "12", "061234", "5678"]), max_size=6
)


@given(IDS.map("".join))
def test_an_id_that_is_plain_at_a_glance_holds_nothing(text):
    for roster in (Roster(), Roster(patient=("Nathalie Brumelune",), phones=("06 12 34 56 78", "123456"))):
        if is_plain_id(text, roster):
            assert find_roster(read((text,)), roster) == checksummed(text) == []


def test_usual_ids_are_plain_at_a_glance():
    roster = Roster(patient=("Nathalie Brumelune",), phones=("06 12 34 56 78",))
    assert all(is_plain_id(text, roster) for text in ("call-0012", "syn-991-00012", "2026-11", "c_3"))
    assert not any(is_plain_id(text, roster) for text in ("brumelune-4", "Brumelunne-4", "c-061234567", "chest:self:1", "a@b"))


def test_files_and_prepare_say_the_same(tmp_path):
    before = record(dict.fromkeys(NOTES[1:], "Mme Brumelune va mieux") | {"block summary": "Nathalie Brumelune, 54 ans"}, HEARD)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(as_line(before) + as_line(record(id="c-2")), "utf-8")
    counts = deidentify_file(source, output)
    first, second = output.read_text("utf-8").splitlines(keepends=True)
    assert counts.labels == {"NOM": 14, "PRENOM": 2} and "Brumelune" not in first
    assert second == as_line(deidentify_record(record(id="c-2")).dialogue)
    cleaned = clean_row(RecordLine("in.jsonl", 1, as_line(before)), CleanOptions())
    assert isinstance(cleaned, Cleaned), cleaned
    assert as_line(cleaned.dialogue) == first


WILD = st.text(max_size=20) | st.sampled_from(
    ["Mme Durand", "```", "\n```json\n{}\n```", "[NOM_1]", "\\u0041", '"', "é\u200b", "06 12 34 56 78"]
)


@settings(deadline=None, max_examples=150)
@given(st.fixed_dictionaries(dict.fromkeys(NOTES, WILD)), st.sampled_from(["fr", "en"]))
def test_whatever_the_notes_hold_codes_stay_and_blocks_are_read(notes, lang):
    value = json.loads(as_line(record()))
    value |= {"lang": lang, "patient": {"history": [{"text": notes["history"]}], "allergies": [notes["allergy"]]}}
    block = {**BLOCK, "summary": notes["block summary"], "missing_info": [notes["block missing_info"]], "escalate": True}
    value["turns"][-1]["text"] = f"Bien.\n```json\n{json.dumps(block)}\n```{notes['block tail']}"
    before = parse_dialogue(json.dumps(value), "f", 1)
    assert isinstance(before, Dialogue)
    done = deidentify_record(before).dialogue
    assert parse_dialogue(as_line(done), "f", 1) == done
    old, new = read_triage(before.turns[-1].text), read_triage(done.turns[-1].text)
    assert (old is None) == (new is None)
    if old and new:
        assert new.model_copy(update={"summary": "", "missing_info": ()}) == old.model_copy(
            update={"summary": "", "missing_info": ()}
        )
    assert [field for field, _ in notes_of(done)] == [field for field, _ in notes_of(before)]


def test_a_text_with_a_block_is_read_as_a_turn_is():
    roster = Roster(patient=("Zoé Brumelune",))
    block = {"urgency": "U2", "summary": "Brumelune a mal", "icd10": ["R07.4"]}
    said = f"Mme Brumelune, venez.\n```json\n{json.dumps(block)}\n```\nMerci Zoé"
    done = deidentify_text(said, "fr", roster)
    block["summary"] = "[NOM_1] a mal"
    assert done.text == f"Mme [NOM_1], venez.\n```json\n{json.dumps(block)}\n```\nMerci [PRENOM_1]"
    assert (done.counts, done.left) == ({"NOM": 2, "PRENOM": 1}, ())
    plain = "```json\n{}```" + " sans rien"
    assert deidentify_text(plain, "fr").text == plain
