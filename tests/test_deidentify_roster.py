"""Names of a roster as they are really said: short forms, in pieces, by ear; and the ordinary words that stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.deidentify.cues import cues
from llmft.deidentify.known_names import initials
from llmft.deidentify.nicknames import nicknames
from llmft.deidentify.phonetics import consonants, sound
from llmft.deidentify.roster import canonical
from llmft.deidentify.roster_index import index_of
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import deidentify, residual
from llmft.deidentify.words import fold
from llmft.knowledge import load
from llmft.prepare.synthetic.recall import GROUPS, Answer, count, read_marked

SAMPLES = read_marked(Path(__file__).parent / "data" / "deid_names.txt")
HELD_OUT = read_marked(Path(__file__).parent / "data" / "deid_utterances.txt")
JEAN = Roster(patient=("Jean-Pierre Le Guerrec",), doctors=("Alain Marchand",))
ROSE = Roster(patient=("Rose Petit",), relatives=("Pierre Petit", "May Short"))


def clean(said: str, roster: Roster, lang: str = "fr") -> str:
    return deidentify((said,), lang, roster, layers=("roster",)).texts[0]


def answer(sample):
    result = deidentify((sample.text,), sample.lang, sample.roster)
    return Answer(result.texts[0], result.spans[0])


def test_the_development_set_is_large_and_apart_from_the_held_out_one():
    assert len(SAMPLES) >= 200 and sum(sample.kind == "none" for sample in SAMPLES) >= 50
    assert {sample.lang for sample in SAMPLES} == {"fr", "en"}
    assert not {sample.text for sample in SAMPLES} & {sample.text for sample in HELD_OUT}


def test_names_of_the_development_set_are_found_and_ordinary_words_stay():
    result = count(SAMPLES, answer)
    recall, untouched = result.recall(GROUPS["names"]), result.clean_share
    assert recall >= 0.97
    assert untouched == 1.0


def test_nothing_of_a_roster_is_left_after_de_identification():
    for sample in SAMPLES:
        assert residual((answer(sample).text,), sample.roster) == [], sample.id


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("leguerrec jean pierre", "[NOM_1] [PRENOM_1]"),
        ("c'est jeanpierre le guer rec", "c'est [PRENOM_1] [NOM_1]"),
        ("c'est j p le guerrec", "c'est [PRENOM_1] [NOM_1]"),
        ("J.-P. Le Guerrec", "[PRENOM_1]. [NOM_1]"),
        ("jp guérec", "[PRENOM_1] [NOM_1]"),
        ("c'est g. le guerrec", "c'est [NOM_1]"),
        ("mes initiales c'est j p g", "mes initiales c'est [NOM_1]"),
        ("g u deux fois r e c", "[NOM_1]"),
        ("il y a guerrec qui attend", "il y a [NOM_1] qui attend"),
        ("marchand m'a dit d'attendre", "[MEDECIN_1] m'a dit d'attendre"),
        ("il est marchand et il m'a dit d'attendre", "il est marchand et il m'a dit d'attendre"),
    ],
)
def test_a_double_name_is_found_however_it_is_cut(said, left):
    assert clean(said, JEAN) == left


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("et pierre aussi", "et [PRENOM_1] aussi"),
        ("la petite rose est toute chaude", "la petite [PRENOM_1] est toute chaude"),
        ("la petite rose du jardin", "la petite rose du jardin"),
        ("rose elle tousse", "[PRENOM_1] elle tousse"),
        ("un bouton rose et pierreux", "un bouton rose et pierreux"),
        ("May I have your name?", "May I have your name?"),
        ("my friend may call back", "my friend may call back"),
        ("It was May Short who fell", "It was [PRENOM_1] [NOM_1] who fell"),
    ],
)
def test_a_name_that_is_a_word_needs_more_than_itself(said, left):
    assert clean(said, ROSE) == left


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Emmanuel Craffe", "manu respire mal"),
        ("Margaret Stannick", "peggy fell down"),
        ("Peggy Stannick", "margaret fell down"),
        ("Claire Aubertin née Maugrain", "maugrin"),
        ("Odile Karpov épouse Lestrange", "odile lestrange"),
        ("Philippe Quéméneur", "filipe kemeneur"),
        ("Sylvain Hauchard", "silvin ochar"),
        ("Kenz Duplessis", "du plessy"),
        ("Bruno Van den Hecke", "van den hèque"),
        ("Thi Nguyen", "n'guyen"),
    ],
)
def test_short_forms_other_surnames_and_sounds_are_the_same_person(name, said):
    found = deidentify((f"bonjour {name}", said), "fr", Roster(patient=(name,)), layers=("roster",))
    assert found.placeholders[1]
    assert set(found.placeholders[1]) <= set(found.placeholders[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("boisseau", "boissot"),
        ("quemeneur", "kemener"),
        ("thierry", "tiery"),
        ("catherine", "kathryn"),
        ("stephen", "steven"),
        ("knowlsby", "nolsbee"),
        ("deschaumes", "dechaume"),
        ("laetitia", "leticia"),
        ("yann", "ian"),
    ],
)
def test_what_sounds_alike_has_one_key(one, other):
    assert sound(one) == sound(other) != ""


@pytest.mark.parametrize(("one", "other"), [("moreau", "marin"), ("dupont", "durand"), ("kenz", "inza"), ("louis", "lea")])
def test_what_sounds_different_has_two_keys(one, other):
    assert sound(one) != sound(other)


def test_consonants_stay_when_vowels_are_misheard():
    assert consonants(sound("mainguene")) == consonants(sound("menguene")) == "mngn"


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=20))
def test_every_word_has_a_key_no_longer_than_its_sounds(word):
    assert len(sound(word)) <= 2 * len(word)  # "x" is two sounds
    assert set(consonants(sound(word))[1:]).isdisjoint("aeiou")


def test_nicknames_go_both_ways_and_are_written_as_they_are_looked_up():
    assert "manu" in nicknames("emmanuel") and "emmanuel" in nicknames("manu")
    assert nicknames("brumelune") == frozenset()
    for lang in ("fr", "en"):
        lines = load("nicknames.yaml")[lang].splitlines()
        assert len(lines) > 150
        assert all(line.count(": ") == 1 and fold(line) == line for line in lines)


def test_words_between_two_surnames_are_no_names():
    known = index_of(Roster(patient=("Claire Aubertin née Maugrain",)))
    assert {"claire", "aubertin", "maugrain"} <= known.exact.keys()
    assert known.exact.keys().isdisjoint(cues().name_links)
    assert [found[0].label for said, found in known.exact.items() if said in ("aubertin", "maugrain")] == ["NOM", "NOM"]


def test_what_several_people_are_called_leads_to_all_of_them_and_a_word_said_twice_counts_once():
    known = index_of(Roster(patient=("Claire Aubertin",), relatives=("Claire Martin",), doctors=("Martin Martin",)))
    assert [(one.person, one.label) for one in known.exact["claire"]] == [(0, "PRENOM"), (1, "PRENOM")]
    assert [(one.person, one.label) for one in known.exact["martin"]] == [(1, "NOM"), (2, "MEDECIN")]
    assert [initials(parts) for parts in known.people] == [{"c", "a"}, {"c", "m"}, {"m"}]


def test_a_name_is_looked_up_once_a_call_and_nothing_is_kept_without_a_roster():
    known, nobody = Roster(patient=("Claire Aubertin",)), Roster()
    written = canonical("Aubertin Claire", known)
    assert written == {"claire", "aubertin"} and canonical("Aubertin Claire", known) is written
    assert canonical("Aubertin Claire", nobody) == {"claire", "aubertin"} and not index_of(nobody).heard.written
