"""Red flags and complaints: every rule's own examples, how words are meant, whole calls, and wild input."""

from __future__ import annotations

import os
import sys
from itertools import product
from subprocess import PIPE, run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.knowledge import protocols
from llmft.protocol import Match, matches, matches_in_call
from llmft.protocol.answer import Answer, answer_of
from llmft.protocol.questions import MIN_SCORE, _best_sharing, _scores, facts_asked, slot_asked
from llmft.protocol.rules import RedFlags, complaints, flag_labels, red_flags
from llmft.protocol.terms import Lexicon, parse_term, plain_word, words_of

EXAMPLES = [
    (flag.id, lang, text, counts)
    for flag in red_flags().values()
    for lang in ("fr", "en")
    for counts, examples in ((True, flag.present), (False, flag.absent))
    for text in getattr(examples, lang)
]


def flag(text: str, name: str, lang: str = "fr") -> Match | None:
    return next((m for m in matches(text, lang) if m.name == name and m.kind == "red_flag"), None)


def counting(text: str, lang: str = "fr") -> set[str]:
    return {m.name for m in matches(text, lang) if m.kind == "red_flag" and m.counts}


@pytest.mark.parametrize(("name", "lang", "text", "counts"), EXAMPLES)
def test_every_example_of_a_rule_does_what_it_says(name, lang, text, counts):
    assert (name in counting(text, lang)) is counts


def test_there_are_enough_rules_and_each_has_its_own_words():
    assert len(red_flags()) >= 60
    slots = {e.slot for p in protocols() for c in p.complaints for e in c.evidence}
    assert {slot for rule in red_flags().values() for slot in rule.slots} <= slots
    assert all(
        rule.ask.fr.rstrip("., ").strip() and "?" in rule.ask.fr + rule.ask.en
        for rule in red_flags().values()
        if rule.id != "limb_cut_off"
    )
    texts = [text for _, _, text, _ in EXAMPLES]
    assert len(texts) == len(set(texts))


def test_a_rule_with_an_unknown_concept_is_refused():
    rule = {**next(iter(red_flags().values())).model_dump(), "when": ("chest + moonlight",)}
    with pytest.raises(ValueError, match="concepts without words: chest, moonlight"):
        RedFlags.model_validate({"date": "2026-11", "source": "test", "concepts": {}, "flags": [rule]})


@pytest.mark.parametrize(
    ("lang", "text", "name", "stance"),
    [
        ("fr", "ma mère a eu un infarctus il y a dix ans", "heart_attack_named", "history"),
        ("fr", "il a fait un AVC en 2015", "stroke_named", "history"),
        ("fr", "est-ce que je risque un AVC ?", "stroke_named", "hypothetical"),
        ("fr", "j'ai peur de faire un infarctus", "heart_attack_named", "hypothetical"),
        ("fr", "je n'ai pas de sang dans les selles, ni de selles noires", "black_stool", "negated"),
        ("fr", "il nie toute idée de suicide", "suicidal_thoughts", "negated"),
        ("fr", "je n'ai pas d'idées noires", "suicidal_thoughts", "negated"),
        ("fr", "selles noires : non", "black_stool", "negated"),
        ("en", "no black stools", "black_stool", "negated"),
        ("en", "she never had a heart attack", "heart_attack_named", "negated"),
        ("en", "she denies any suicidal thoughts", "suicidal_thoughts", "negated"),
        ("en", "my dad had a heart attack ten years ago", "heart_attack_named", "history"),
        ("en", "what if it is a stroke", "stroke_named", "hypothetical"),
    ],
)
def test_denied_past_and_feared_signs_are_told_apart(lang, text, name, stance):
    match = flag(text, name, lang)
    assert match is not None
    assert (match.stance, match.counts, match.negated) == (stance, False, stance == "negated")


@pytest.mark.parametrize(
    ("lang", "text", "name"),
    [
        (
            "fr",
            "ma mère a eu un infarctus il y a dix ans, et là j'ai mal dans la poitrine qui part dans le bras gauche",
            "chest_pain_radiating",
        ),
        ("fr", "je ne dors plus tellement j'ai mal à la poitrine, ça m'oppresse", "chest_pressure"),
        ("fr", "je n'ai jamais eu mal à la tête comme ça", "thunderclap_headache"),
        ("fr", "il ne s'arrête pas de saigner du nez", "heavy_bleeding"),
        ("fr", "j'ai peur de me faire du mal", "suicidal_thoughts"),
        ("fr", "pas de fièvre mais son visage est de travers", "stroke_face"),
        ("fr", "j'ai mal à la poitrine. Ça descend dans le bras gauche.", "chest_pain_radiating"),
        ("fr", "JAI DU SANG, PAS MAL DE SANG QUI COULE, ÇA SAIGNE BEAUCOUP", "heavy_bleeding"),
        ("en", "my dad had a heart attack in 2010 but today his chest feels tight", "chest_pressure"),
        ("en", "I can't stop the bleeding", "heavy_bleeding"),
        ("en", "no fever, but he can't move his left arm", "stroke_arm"),
    ],
)
def test_a_negation_or_a_memory_beside_a_sign_does_not_hide_it(lang, text, name):
    assert name in counting(text, lang)


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("fr", "je suis mort de fatigue et ce dossier me tue"),
        ("fr", "pas de fièvre, de toux, ni de douleur dans la poitrine"),
        ("fr", "je voudrais savoir les symptômes de la méningite"),
        ("fr", "mon grand-père est mort d'un AVC, moi j'ai juste mal au genou"),
        ("fr", "mon fils de 7 ans a 39 de fièvre depuis hier"),
        ("fr", "j'ai eu de la fièvre il y a deux semaines"),
        ("en", "I'm dying for a coffee, my phone died"),
        ("en", "no fever, no cough, no chest pain"),
        ("en", "call me back if she gets chest pain with sweating"),
        ("en", "can I talk to someone about a prescription?"),
    ],
)
def test_false_friends_raise_nothing(lang, text):
    assert counting(text, lang) == set()


def test_a_match_quotes_the_words_and_names_its_rule():
    text = "Bonjour, sa bouche est de travers depuis ce matin."
    match = flag(text, "stroke_face")
    assert match == Match(
        "red_flag:stroke_face", "red_flag", "stroke_face", "neurologie", "U1", "bouche est de travers", (12, 33)
    )
    assert text[match.span[0] : match.span[1]] == match.quote


def test_the_complaint_of_a_turn_comes_with_its_specialty():
    found = [m for m in matches("j'ai un grain de beauté qui a changé de couleur", "fr") if m.kind == "complaint"]
    assert [(m.name, m.specialty, m.urgency) for m in found] == [("changing_mole", "dermatologie", "U3")]
    assert matches("bonjour madame", "fr") == ()


CALL = [
    ("patient", "Bonjour, j'ai mal dans la poitrine."),
    ("operator", "Est-ce que la douleur descend dans le bras ou la mâchoire ?"),
    ("patient", "euh, oui, depuis une heure"),
]


def test_a_yes_takes_over_the_question_and_the_opening():
    names = {m.name: m for m in matches_in_call(CALL, "fr") if m.counts}
    assert names["chest_pain_radiating"].turn == 2
    assert names["chest_pain_radiating"].quote == "euh, oui, depuis une heure"
    assert names["chest_pain"].kind == "complaint"


def test_a_no_denies_the_question():
    said = [*CALL[:2], ("patient", "non, pas du tout")]
    found = matches_in_call(said, "fr")
    assert "chest_pain_radiating" not in {m.name for m in found if m.counts}
    assert {m.stance for m in found if m.name == "pain_radiating"} == {"negated"}


def test_an_answer_to_something_else_says_nothing_of_the_question():
    said = [*CALL[:2], ("patient", "attendez, je ferme la porte")]
    assert {m.kind for m in matches_in_call(said, "fr") if m.counts} == {"complaint"}


def test_a_question_in_other_words_finds_its_fact():
    evidence = slot_asked("chest_pain", "Et la douleur, elle part vers la mâchoire ou le bras ?", "oui", "fr")
    assert evidence is not None and evidence.slot == "pain_radiating"
    assert slot_asked("chest_pain", "Quel temps fait-il ?", "oui", "fr") is None


def test_questions_of_one_call_tell_each_other_apart():
    asked = [("Le sucre a-t-il été pris, et rien n'y fait ?", "oui"), ("Et un repas a-t-il été manqué ?", "non")]
    found = facts_asked("low_blood_sugar", [*asked, ("Quel âge avez-vous ?", "oui, 40 ans")], "fr")
    assert {number: evidence.slot for number, evidence in found.items()} == {0: "hypo_not_improving", 1: "hypo_meal_skipped"}


def test_facts_that_fit_alike_count_in_the_order_of_the_protocol():
    """Words come out of sets, whose order is another one in every process."""
    asked = "Est-ce que la douleur irradie vers la mâchoire, le bras ou le dos, avec des sueurs, un malaise et le souffle court ?"
    found = [_scores(name, (asked, "oui, un peu"), "fr") for name in sorted(complaints())]
    assert sum(len(scores) > 1 for scores in found) > 5
    assert all(list(scores) == sorted(scores) for scores in found)


def test_what_is_asked_in_any_call_is_no_fact_of_the_complaint():
    assert slot_asked("headache", "Prenez-vous des médicaments en ce moment ?", "oui, un traitement", "fr") is None
    assert facts_asked("headache", [("Prenez-vous des médicaments en ce moment ?", "oui, un traitement")], "fr") == {}


def test_a_yes_at_the_second_asking_counts():
    said = [*CALL[:2], ("patient", "non"), ("operator", "Vous êtes sûr, rien dans le bras ?"), ("patient", "si, le bras aussi")]
    assert "pain_radiating" in {m.name for m in matches_in_call(said, "fr") if m.counts}


scores = st.dictionaries(st.integers(0, 3), st.integers(0, 9).map(float), max_size=4)


@given(st.lists(scores, max_size=4))
def test_facts_are_shared_out_as_well_as_can_be(fits):
    """Against every way to share; fact 3 is a general one, which many questions may be about."""
    own = (0, 1, 2)
    found = _best_sharing(fits, own)
    ways = product(*([None, *(n for n, s in fit.items() if s >= MIN_SCORE)] for fit in fits))
    allowed = [way for way in ways if all(way.count(n) <= 1 for n in own)]

    def worth(way):
        return sum(fits[exchange][number] for exchange, number in enumerate(way) if number is not None)

    given_away = [found.get(exchange) for exchange in range(len(fits))]
    assert all(given_away.count(n) <= 1 for n in own)
    assert worth(given_away) == max(map(worth, allowed))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("euh, oui", "yes"),
        ("ah ça oui, en plein dedans", "yes"),
        ("tout à fait", "yes"),
        ("Hélas oui.", "yes"),
        ("un peu, oui", "yes"),
        ("j'ai bien peur que oui", "yes"),
        ("je crois bien", "yes"),
        ("Hélas, oui", "yes"),
        ("voilà, non, rien", "no"),
        ("hélas non", "no"),
        ("absolument pas", "no"),
        ("definitely not", "no"),
        ("unfortunately, no", "no"),
        ("si je bouge", "other"),
        ("si, le bras", "yes"),
        ("afraid so", "yes"),
        ("kind of", "yes"),
        ("that's right", "yes"),
        ("non", "no"),
        ("que nenni", "no"),
        ("négatif, rien", "no"),
        ("pas que je sache", "no"),
        ("du tout", "no"),
        ("je ne crois pas", "no"),
        ("I don't think so", "no"),
        ("no way", "no"),
        ("nope", "no"),
        ("non, mais j'ai mal au bras", "other"),
        ("pas mal de sang", "other"),
        ("il ne bouge plus le bras", "other"),
        ("on the right side", "other"),
        ("right arm", "other"),
        ("attendez, je ferme la porte", "other"),
        ("", "other"),
    ],
)
def test_how_an_answer_begins(text, answer):
    assert answer_of(words_of(text).plain) is Answer(answer)


@pytest.mark.parametrize(
    ("question", "answer", "flags"),
    [
        ("Est-ce qu'il respire ?", "non", {"cardiac_arrest"}),
        ("Respire-t-elle ?", "non, plus du tout", {"cardiac_arrest"}),
        ("Respire-t-elle ?", "oui, oui", set()),
        ("Respire-t-elle mal ?", "non", set()),
        ("Un bras répond-il moins bien ?", "non", set()),
        ("La peau se creuse-t-elle entre les côtes quand il respire ?", "non", set()),
        ("Respirez-vous normalement ?", "non, pas du tout", {"severe_breathlessness"}),
        ("Est-elle consciente ?", "non", {"unconscious"}),
        ("Est-elle consciente ?", "attendez, je vais voir", set()),
        ("Arrivez-vous à finir vos phrases ?", "pas vraiment", {"severe_breathlessness"}),
        ("Peut-il lever les deux bras ?", "non", {"stroke_arm"}),
        ("Le sang s'arrête-t-il quand vous appuyez ?", "non", {"heavy_bleeding"}),
        ("Is he breathing?", "no", {"cardiac_arrest"}),
        ("Is he breathing fast?", "no", set()),
        ("Is there trouble passing urine?", "no", set()),
        ("Is she awake?", "no", {"unconscious"}),
        ("Is the inhaler helping?", "not really", {"severe_asthma"}),
    ],
)
def test_a_no_to_whether_all_is_well_is_a_red_flag(question, answer, flags):
    lang = "en" if question.startswith("Is ") else "fr"
    said = [("patient", "bonjour"), ("operator", question), ("patient", answer)]
    assert {m.name for m in matches_in_call(said, lang) if m.kind == "red_flag" and m.counts} == flags


def test_no_specialty_or_flag_is_unknown():
    assert set(flag_labels()) >= set(red_flags())
    assert len(complaints()) == sum(len(p.complaints) for p in protocols())


READ = """
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.protocol import matches_in_call
for call in synthesize(120, seed=4):
    print(matches_in_call([(turn.speaker, turn.text) for turn in call.turns], call.lang))
"""


def test_every_process_reads_the_same_in_the_same_order():
    """Workers have other hash seeds, and with them another order of sets."""
    said = {run([sys.executable, "-c", READ], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=PIPE).stdout for seed in "123"}
    assert len(said) == 1 and len(said.pop().splitlines()) == 120


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("bras gauche", "le bras gauche", [(1, 3)]),
        ("irradi*", "ça irradie", [(1, 2)]),
        ("jambe|mollet ~ rouge", "le mollet est un peu rouge", [(1, 6)]),
        ("jambe ~ rouge", "la jambe n'est pas rouge", []),
        ("jambe ~ rouge", "la jambe. Un rouge", []),
        ("respire plus !vite", "il respire plus", [(1, 3)]),
        ("respire plus !vite", "il respire plus vite", []),
        ("can't breathe", "I can’t breathe", [(1, 3)]),
        ("œil", "l'OEIL", [(1, 2)]),
        ("et là", "et la porte", []),
        ("mal tête|ventre", "mal ventre, mal dos, mal", [(0, 2)]),
    ],
)
def test_terms_find_what_their_notation_says(term, text, found):
    assert [(start, end) for _, start, end in Lexicon([(term, "x")]).find(words_of(text).plain)] == found


@given(st.text(max_size=200))
def test_words_know_their_characters(text):
    words = words_of(text)
    for number, word in enumerate(words.plain):
        start, end = words.characters(number, number + 1)
        assert plain_word(text[start:end]) == word
    if words.plain:
        assert words.characters(0, len(words.plain)) == (words.characters(0, 1)[0], end)


@pytest.mark.parametrize("term", ["", "~ bras", "!pas", "bras ~", "ab*"])
def test_terms_that_no_text_could_hold_are_refused(term):
    with pytest.raises(ValueError):
        parse_term(term)


@given(st.text(max_size=300), st.sampled_from(["fr", "en"]))
def test_wild_text_never_breaks_the_matcher(text, lang):
    for match in matches(text, lang):
        assert text[match.span[0] : match.span[1]] == match.quote


WORDS = st.sampled_from(
    ["pas", "de", "sang", "ni", "fièvre", ",", ".", "?", ":", "non", "oui", "je", "n", "ai", "mal", "poitrine", "mais", "jamais"]
    + ["il y a dix ans", "là", "risque", "avc", "en finir", "plus"]
)


@given(st.lists(st.tuples(st.sampled_from(["patient", "operator"]), st.lists(WORDS, max_size=15).map(" ".join)), max_size=8))
def test_wild_calls_quote_what_the_patient_said(turns):
    for match in matches_in_call(turns, "fr"):
        speaker, text = turns[match.turn]
        assert speaker == "patient" and text[match.span[0] : match.span[1]] == match.quote
