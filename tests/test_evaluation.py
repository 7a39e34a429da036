"""Models, rules and rivals set side by side, the page that tells of it, and the gate; answers are given, models are not run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.cli import main
from llmft.dialogue import Dialogue, Urgency, write_dialogues
from llmft.errors import GateError, RecipeError
from llmft.evaluate import stage
from llmft.evaluate.candidates import find_candidate
from llmft.evaluate.comparison import compare
from llmft.evaluate.contest import CallSet, Contestant, rivals
from llmft.evaluate.figures.triage import FIGURES
from llmft.evaluate.figures.urgency import ranks
from llmft.evaluate.gate import Policy, gate
from llmft.evaluate.predict import write_predictions
from llmft.evaluate.prediction import Prediction, Verdict
from llmft.evaluate.reporting import names
from llmft.evaluate.reporting.errors_section import worst_errors
from llmft.evaluate.reporting.other_names import measured_words
from llmft.evaluate.reporting.verdict import opinion
from llmft.evaluate.rivals.calls import taught
from llmft.evaluate.rivals.encoder_recipe import EncoderRecipe, read_strict
from llmft.evaluate.rivals.floor import WordRegression, majority
from llmft.evaluate.rivals.rules import Read, with_rules
from llmft.evaluate.swaps import SWAPS, count_flips, measure_swaps
from llmft.evaluate.truth import gold_verdict
from llmft.gate_result import Judged, card_section, judgement_of, put_on_card, require_gate, write_gate
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.recipe import Data, Recipe
from llmft.run import sha256

KEY = "k"


class Evaluated(NamedTuple):
    recipe: Recipe
    report: dict[str, Any]
    page: str
    calls: list[Dialogue]


def answers(calls: list[Dialogue], *, misses_every: int = 0) -> list[Prediction]:
    """Perfect answers, or with an emergency missed now and then; sure of itself where it is right."""
    found, emergencies = [], 0
    for dialogue in calls:
        gold = gold_verdict(dialogue)
        assert gold is not None
        emergencies += gold.urgency == "U1"
        is_missed = misses_every and gold.urgency == "U1" and emergencies % misses_every == 0
        said = gold.model_copy(update={"urgency": "U3" if is_missed else gold.urgency})
        chances = dict.fromkeys(("U1", "U2", "U3", "U4"), 0.02) | {said.urgency: 0.5 if is_missed else 0.94}
        found.append(
            Prediction(
                id=dialogue.id, gold=gold, predicted=said, seconds=0.1, urgency_probabilities=chances,
                top_specialties=((said.specialty, 0.9), ("orl", 0.1)),
            )
        )  # fmt: skip
    return found


def recipe_in(folder: Path, name: str) -> Recipe:
    return Recipe(
        name=name, base="nowhere/base", template="llama3", data=Data(folder=str(folder / "calls")), runs=str(folder / "runs")
    )


def put(recipe: Recipe, models: dict[str, list[Prediction]]) -> dict[str, Any]:
    """What ``evaluate`` does once the models have answered."""
    facts, test, validation = stage.read_sets(recipe)
    held_out = answers(list(validation.dialogues))
    for name, predictions in models.items():
        write_predictions(recipe.run.evaluation_dir / f"predictions-{name}.jsonl", KEY, predictions)
    made = {"m-Q4_0.gguf": (("file", "f" * 64),), "base": tuple(find_candidate(recipe, "base").identity.items())}
    contestants = [Contestant(n, "model", p, held_out, KEY, made.get(n, ())) for n, p in models.items()]
    return stage.report(recipe, contestants, facts, test, validation)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("evaluated")
    calls = list(synthesize(100, seed=5))
    for split in ("train", "validation", "test"):
        write_dialogues(folder / "calls" / f"{split}.jsonl", [call for call in calls if call.split == split])
    recipe = recipe_in(folder, "m")
    test = [call for call in calls if call.split == "test"]
    (recipe.run.evaluation_dir).mkdir(parents=True)
    (recipe.run.evaluation_dir / "conversation.json").write_text(
        '{"models": {"adapter": {"coverage_by_turn": [0.2, 0.6, 0.9], "turns": 5.5, "made_of": {}, "calls": 9, '
        '"emergency_recall": 0.25, "emergency_recall_with_rules": 0.75}, '
        '"m-Q4_0.gguf": {"turns_used": 7, "made_of": {"file": "of before"}}}}'
    )
    (recipe.run.evaluation_dir / "privacy.json").write_text('{"adapter": {"extraction_rate": 0.0, "exposure": "<script>"}}')
    report = put(recipe, {"adapter": answers(test, misses_every=3), "m-Q4_0.gguf": answers(test), "base": [
        p.model_copy(update={"predicted": None, "urgency_probabilities": None}) for p in answers(test)
    ]})  # fmt: skip
    return Evaluated(recipe, report, (recipe.run.evaluation_dir / "report.html").read_text("utf-8"), test)


def test_everybody_is_in_one_table(evaluated: Evaluated) -> None:
    kinds = {name: entry["kind"] for name, entry in evaluated.report["models"].items()}
    assert list(kinds) == [
        "base",
        "adapter",
        "m-Q4_0.gguf",
        "adapter + rules",
        "m-Q4_0.gguf + rules",
        "rules",
        "majority",
        "tfidf",
    ]
    assert [kinds[name] for name in ("adapter", "adapter + rules", "tfidf")] == ["model", "rules", "rival"]
    models = evaluated.report["models"]
    assert models["m-Q4_0.gguf"]["emergency_recall"] == 1.0 and models["base"]["under_triage"] == 1.0
    assert 0.5 < models["adapter"]["emergency_recall"] < 1.0
    assert models["adapter + rules"]["emergency_recall"] >= models["adapter"]["emergency_recall"]
    quant = next(d for d in models["m-Q4_0.gguf"]["against_main"] if d["figure"] == "emergency_recall")
    assert quant["only_first"] == 0 and quant["only_second"] > 0 and quant["value"] > 0
    assert models["adapter"]["certainty"]["temperature"] > 0 and models["base"]["certainty"] is None


def test_flat_form_has_one_number_a_name(evaluated: Evaluated) -> None:
    flat = json.loads((evaluated.recipe.run.evaluation_dir / "metrics-flat.json").read_text())
    assert flat["m-Q4_0.gguf/emergency_recall"] == 1.0
    assert flat["adapter _ rules/emergency_recall.low"] <= flat["adapter _ rules/emergency_recall"]
    assert all(re.fullmatch(r"[\w\-. /]+", name) and isinstance(number, float) for name, number in flat.items())


def test_rivals_are_kept_and_read_again(evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("llmft.evaluate.contest.WordRegression", None)
    facts, test, validation = stage.read_sets(evaluated.recipe)
    kept = stage.kept_models(evaluated.recipe, facts, test, validation)
    assert [model.name for model in kept] == ["base", "adapter", "m-Q4_0.gguf"]
    again = stage.report(evaluated.recipe, kept, facts, test, validation)
    again["models"].pop("adapter"), again["models"].pop("m-Q4_0.gguf")  # their validation answers were not kept
    for name, entry in again["models"].items():
        assert entry == evaluated.report["models"][name], name
    assert "emergencies" in capsys.readouterr().out
    put(evaluated.recipe, {"adapter": answers(evaluated.calls, misses_every=3), "m-Q4_0.gguf": answers(evaluated.calls)})


def test_page_begins_with_the_verdict_and_holds_everything(evaluated: Evaluated) -> None:
    page = evaluated.page
    order = ["Would you let it answer the phone",
             "Everybody on the same calls", "What quantisation cost", "The worst twenty errors",
             "What is taken for what?", "Does it know what it does not know", "The conversation", "For whom is it worse",
             "Personal data: attacks", "Differences from: tuned model", "Every figure", "What this test cannot show"]  # fmt: skip
    places = [page.find(title) for title in order]
    assert -1 not in places and places == sorted(places)
    assert "No: “tuned model + rules” must not answer the phone" in page or "Not alone: “tuned model + rules”" in page
    missed = [p.id for p in worst_errors(answers(evaluated.calls, misses_every=3))]
    assert 0 < len(missed) <= 20 and all(f"<code>{name}</code>" in page for name in missed)
    assert "are invented or simulated" in page and "extraction_rate" in page and page.count("<svg") >= 6


def test_page_asks_nothing_of_the_network_and_shows_no_words(evaluated: Evaluated) -> None:
    page = evaluated.page
    assert "default-src 'none'" in page and not re.search(r"(src|href)=|https?://|style=|@import|url\(", page)
    assert page.count('class="fr"') == page.count('class="en"')
    assert "<script>" not in page
    said = [turn.text for call in evaluated.calls for turn in call.turns if len(turn.text) > 25]
    assert not any(text in page for text in said)


def test_a_rival_that_wins_is_in_the_first_line(evaluated: Evaluated, tmp_path: Path, capsys: Any) -> None:
    recipe = recipe_in(Path(evaluated.recipe.runs).parent, "worse")
    wrong = [p.model_copy(update={"predicted": None}) for p in answers(evaluated.calls)]
    report = put(recipe, {"adapter": wrong})
    assert {win["rival"] for win in report["rivals_that_win"]} >= {"rules", "tfidf"}
    assert capsys.readouterr().out.startswith("rules beats adapter at triage_success")
    page = (recipe.run.evaluation_dir / "report.html").read_text("utf-8")
    verdict = page[page.index('class="verdict') :]
    assert verdict.index("A simpler rival does better") < verdict.index("Not alone:")
    assert "A simpler rival" not in evaluated.page.partition("</section>")[0] or evaluated.report["rivals_that_win"]


def test_set_without_emergencies_is_reported_and_judges_nobody(evaluated: Evaluated, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "calm")
    calm = [call for call in evaluated.calls if call.labels is not None and call.labels.urgency == "U3"]
    write_dialogues(tmp_path / "calls" / "test.jsonl", calm)
    report = put(recipe, {"adapter": answers(calm)})
    assert report["models"]["adapter"]["emergency_recall"] is None
    assert any("no U1 call" in note for note in report["models"]["adapter"]["notes"])
    assert "nothing can be said about safety" in (recipe.run.evaluation_dir / "report.html").read_text("utf-8")
    judged = gate(recipe, policy(tmp_path, "require: [{figure: emergency_recall, at_least: 0.1}]"), [], None)["adapter"]
    assert judged.short == (
        "0 emergencies in the test, and the policy asks for 1",
        "emergency_recall cannot be measured on this test",
    )


def test_trainings_with_other_seeds_are_set_beside(evaluated: Evaluated) -> None:
    folder = Path(evaluated.recipe.runs).parent
    for name, misses in (("many", 2), ("many-seed2", 4), ("many-seed3", 0), ("many-seedling", 1)):
        report = put(recipe_in(folder, name), {"adapter": answers(evaluated.calls, misses_every=misses)})
        assert report["seeds"] == {}
    report = put(recipe_in(folder, "many"), {"adapter": answers(evaluated.calls, misses_every=2)})
    values = [
        json.loads((folder / "runs" / name / "evaluation/metrics.json").read_text())["models"]["adapter"]["emergency_recall"]
        for name in ("many", "many-seed2", "many-seed3")
    ]
    found = report["seeds"]["emergency_recall"]
    assert (found["seeds"], found["low"], found["high"]) == (3, min(values), 1.0)
    assert found["mean"] == pytest.approx(sum(values) / 3) and found["deviation"] > 0
    page = (folder / "runs/many/evaluation/report.html").read_text("utf-8")
    assert (
        "With other seeds" in page and "One training with one seed" not in page and "One training with one seed" in evaluated.page
    )


verdicts = st.builds(Verdict, urgency=st.sampled_from(list(ranks())), specialty=st.just("orl"))


@settings(deadline=None)
@given(st.none() | verdicts, st.sampled_from([None, "U1", "U2", "U3"]))
def test_rules_can_only_raise(said: Verdict | None, flag: str | None) -> None:
    gold = Verdict(urgency="U1", specialty="cardiologie")
    own = Verdict(urgency=flag or "U4", specialty="cardiologie", red_flags=("chest_pain",) if flag else ())
    least = cast(Urgency | None, flag)
    read = Read(Prediction(id="a", gold=gold, predicted=own, seconds=0.0), least, frozenset({"cardiologie"} if flag else ()))
    raised = with_rules(Prediction(id="a", gold=gold, predicted=said, seconds=0.0), read).predicted
    if flag is None:
        assert (raised and (raised.urgency, raised.specialty)) == (said and (said.urgency, said.specialty))
        return
    assert raised is not None and "chest_pain" in raised.red_flags
    before = ranks()[said.urgency] if said is not None else 0
    assert ranks()[raised.urgency] == (min(before, ranks()[flag]) if before else ranks()[flag])
    is_corrected = raised.urgency != (said.urgency if said is not None else None)
    assert raised.specialty == ("cardiologie" if is_corrected or said is None else said.specialty)


def test_floors_of_sets_with_a_single_label() -> None:
    calls = [call for call in synthesize(60, seed=5) if call.labels is not None and call.labels.urgency == "U1"][:4]
    pairs = [(call, truth) for call in calls if (truth := gold_verdict(call)) is not None]
    same = [call.model_copy(update={"labels": calls[0].labels}) for call in calls]
    for found in (majority(pairs, taught(same)), WordRegression(taught(same), taught([])).predict(pairs)):
        assert {p.predicted.specialty for p in found if p.predicted} == {calls[0].labels.specialty if calls[0].labels else ""}
        assert found[0].urgency_probabilities == {"U1": 1.0}


def test_word_regression_learns_what_words_tell(evaluated: Evaluated) -> None:
    train = [call for call in synthesize(100, seed=5) if call.split == "train"]
    pairs = [(call, truth) for call in train if (truth := gold_verdict(call)) is not None]
    found = WordRegression(taught(train), taught(train)).predict(pairs)
    assert sum(p.predicted is not None and p.predicted.specialty == p.gold.specialty for p in found) > 0.9 * len(found)
    assert all(sum((p.urgency_probabilities or {}).values()) == pytest.approx(1) and len(p.top_specialties) > 3 for p in found)


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(f"beside_rules: false\n{text}\n", "utf-8")
    return path


def test_gate_says_what_falls_short_and_who_may_be_handed_on(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = evaluated.recipe
    file = Path("export/m/m-Q4_0.gguf")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    metrics = recipe.run.evaluation_dir / "metrics.json"
    metrics.write_text(metrics.read_text().replace("f" * 64, sha256(file)))
    asked = policy(tmp_path, "require: [{figure: emergency_recall, at_least: 0.9}, {figure: under_triage, at_most: 0.05}]")
    judged = gate(recipe, asked, [], None)
    assert (judged["adapter"].passed, judged["m-Q4_0.gguf"].passed) == (False, True)
    assert [sentence.partition(" is ")[0] for sentence in judged["adapter"].short] == ["emergency_recall", "under_triage"]
    written = json.loads((recipe.run.evaluation_dir / "gate.json").read_text())
    assert set(written) == {"passed", "policy_sha256", "models"} and written["policy_sha256"] == sha256(asked)
    assert written == json.loads(Path("export/m/gate.json").read_text()) and not written["passed"]
    require_gate(file)

    strict = policy(tmp_path, "require: [{figure: emergency_recall, at_least: 0.999, bound: interval}]")
    assert not gate(recipe, strict, ["m-Q4_0.gguf"], None)["m-Q4_0.gguf"].passed
    kept = json.loads((recipe.run.evaluation_dir / "gate.json").read_text())["models"]
    assert kept["adapter"] == written["models"]["adapter"]  # judging one model lets no other one go
    with pytest.raises(GateError, match=r"m-Q4_0.gguf failed its gate \(emergency_recall is 0\.\d+ .*--despite-gate"):
        require_gate(file)
    require_gate(file, despite=True)
    elsewhere = tmp_path / "copy.gguf"
    elsewhere.write_bytes(b"weights")
    assert judgement_of(elsewhere) is None and judgement_of(elsewhere, [file.parent]) is not None
    elsewhere.write_bytes(b"other weights")
    assert judgement_of(elsewhere, [file.parent]) is None

    section = card_section(["m-Q4_0.gguf", "unknown.gguf"], recipe.run.evaluation_dir)
    assert "| `m-Q4_0.gguf` | 1.000 [0." in section and "| `m-Q4_0.gguf + rules` |" in section and "unknown" not in section
    assert "Gate, `m-Q4_0.gguf`: **failed** (emergency_recall is" in section
    assert card_section(["unknown.gguf"], recipe.run.evaluation_dir) == card_section(["x"], tmp_path) == ""
    card = tmp_path / "MODEL_CARD.md"
    put_on_card(card, section)
    assert not card.exists()
    card.write_text("# Model\n\nText.\n")
    put_on_card(card, "## Evaluation\nold")
    card.write_text(card.read_text() + "## More\n")
    put_on_card(card, section)
    assert card.read_text() == f"# Model\n\nText.\n\n<!-- evaluated -->\n{section}\n<!-- end of evaluated -->\n## More\n"


def test_gate_against_the_version_in_use(evaluated: Evaluated) -> None:
    folder = Path(evaluated.recipe.runs).parent
    newer = recipe_in(folder, "newer")
    put(newer, {"adapter": answers(evaluated.calls, misses_every=2)})
    kept = ", ".join(f"{{figure: {name}, lose_at_most: 0.01}}" for name in ("emergency_recall", "under_triage"))
    asked = policy(folder, f"require: [{{figure: format_valid, at_least: 0.9}}]\nagainst: [{kept}]")
    old = evaluated.recipe.run.root
    short = gate(newer, asked, ["adapter"], old)["adapter"].short
    assert [re.sub(r"0\.\d{4}", "x", sentence) for sentence in short] == [
        "emergency_recall loses x against the version in use, at most 0.01 is allowed",
        "under_triage loses x against the version in use, at most 0.01 is allowed",
    ]
    assert gate(evaluated.recipe, asked, ["adapter"], newer.run.root)["adapter"].passed
    write_dialogues(folder / "calls" / "test.jsonl", evaluated.calls[:-1])
    put(newer, {"adapter": answers(evaluated.calls[:-1])})
    try:
        with pytest.raises(GateError, match="was not evaluated on the same calls"):
            gate(newer, asked, ["adapter"], old)
    finally:
        write_dialogues(folder / "calls" / "test.jsonl", evaluated.calls)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("require: [{figure: recall, at_least: 1}]", "'recall' is none of urgency_accuracy"),
        ("require: [{figure: under_triage}]", "give at_least or at_most"),
        ("require: []", "require"),
        ("require: [{figure: under_triage, at_most: 5}]", "at_most"),  # per cent: it would let everybody pass
        ("require: [{figure: emergency_recall, at_least: .nan}]", "at_least"),
        ("requires: 1", "known keys"),
    ],
)
def test_policy_that_cannot_be_meant_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=told):
        read_strict(policy(tmp_path, text), Policy)


def test_shipped_policy_lets_nobody_pass_who_calls_everything_an_emergency(evaluated: Evaluated) -> None:
    recipe = recipe_in(Path(evaluated.recipe.runs).parent, "alarm")
    alarmed = [p.model_copy(update={"predicted": p.gold.model_copy(update={"urgency": "U1"})}) for p in answers(evaluated.calls)]
    put(recipe, {"adapter": alarmed})
    shipped = (Path(__file__).parents[1] / "recipes/gate.yaml").read_text("utf-8").replace("emergencies: 59", "emergencies: 0")
    asked = Path(recipe.runs).parent / "shipped.yaml"
    asked.write_text(shipped, "utf-8")
    assert gate(recipe, asked, [], None)["adapter"].short == ("urgency_kappa is 0.0000, at least 0.4 is asked",)


def test_what_was_measured_of_another_model_by_that_name_is_not_shown(evaluated: Evaluated) -> None:
    assert "it recognises 25 % of the emergencies, 75 % with the rules" in evaluated.page  # the adapter's is its own
    assert "Operator&#x27;s turns" not in evaluated.page  # the file has been made anew


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("manner.terse.under_triage", "manner · terse · Under-triage"),
        ("emergency_recall_with_rules", "Emergencies recognised, with the rules"),
        ("name.urgency_flip_rate", "name · Share of urgencies changed"),
        ("exposure_4x", "exposure_4x"),
    ],
)
def test_what_else_was_measured_has_words(key: str, told: str) -> None:
    assert measured_words(key)[1] == told


def test_every_figure_has_a_name_in_both_languages() -> None:
    assert set(names.FIGURES) == set(FIGURES)
    assert names.contestant("m-Q4_0.gguf + rules", "m") == ("Q4_0 + règles", "Q4_0 + rules")
    assert names.contestant("adapter", "m") == ("modèle affiné", "tuned model")


def test_verdict_tells_what_happens_without_rules_and_which_file_falls_short(evaluated: Evaluated) -> None:
    verdict = evaluated.page[: evaluated.page.index("Everybody on the same calls")]
    alone = evaluated.report["models"]["adapter"]
    missed = round((1 - alone["emergency_recall"]) * alone["emergencies"])
    assert (
        f"Without the rules, as in GPT4All, it recognises {100 * alone['emergency_recall']:.1f} % of them: {missed} of" in verdict
    )
    good, silent = answers(evaluated.calls), [p.model_copy(update={"predicted": None}) for p in answers(evaluated.calls)]
    beside: list[Contestant] = [Contestant("adapter + rules", "rules", good), Contestant("n-Q4_0.gguf + rules", "rules", silent)]
    contestants = [Contestant("adapter", "model", good), *beside]
    facts, test, _ = stage.read_sets(evaluated.recipe)
    told = [en for _, en in opinion(compare(contestants, test, facts, evaluated.recipe.run.root), "n", {}).lines]
    assert "But “Q4_0 + rules”: Emergencies recognised: 0.0 %, target at least 95.0 %." in told
    assert not any(line.startswith("But") for line in told[:2])


def test_who_loses_emergencies_when_leading_the_call_is_not_let_through(evaluated: Evaluated) -> None:
    good = [p.model_copy(update={"id": f"{p.id}-{n}"}) for n in range(20) for p in answers(evaluated.calls)]
    calls = [
        call.model_copy(update={"id": f"{call.id}-{n}", "family_id": f"{n}{call.id}"})
        for n in range(20)
        for call in evaluated.calls
    ]
    facts, _, _ = stage.read_sets(evaluated.recipe)
    found = compare([Contestant("adapter", "model", good)], CallSet(tuple(calls)), facts, evaluated.recipe.run.root)
    assert opinion(found, "m", {}).answer == "yes"
    led = {"calls": 9, "emergency_recall": 0.9, "emergency_recall_with_rules": 0.94}
    assert opinion(found, "m", {"adapter": led}).answer == "open"
    assert opinion(found, "m", {"adapter": {**led, "emergency_recall_with_rules": 0.95}}).answer == "yes"


def test_rivals_are_asked_again_when_a_label_is_corrected(evaluated: Evaluated) -> None:
    facts, test, validation = stage.read_sets(evaluated.recipe)
    first = test.dialogues[0]
    assert first.labels is not None
    other = first.model_copy(update={"labels": first.labels.model_copy(update={"specialty": "dentaire"})})
    corrected = CallSet((other, *test.dialogues[1:]))
    found = {rival.name: rival for rival in rivals(evaluated.recipe, corrected, validation)}
    assert {found[name].predictions[0].gold.specialty for name in ("rules", "majority", "tfidf")} == {"dentaire"}
    rivals(evaluated.recipe, test, validation)


def test_gate_without_figures_is_an_error_and_its_exit_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    assert main(["gate", "recipes/demo-llama.yaml", f"runs={tmp_path}"]) == 1
    assert "llmft evaluate" in capsys.readouterr().err
    assert read_strict(root / "recipes/gate.yaml", Policy).beside_rules


def test_serve_and_install_refuse_a_model_that_failed_its_gate(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "m-Q4_0.gguf"
    file.write_bytes(b"GGUF")
    write_gate([tmp_path], "0" * 64, {file.name: Judged(False, sha256(file), ("emergency_recall is 0.5",))})
    for verb in ("serve", "install-gpt4all"):
        assert main([verb, str(file)]) == 1
        assert "failed its gate (emergency_recall is 0.5); train a better one" in capsys.readouterr().err


def test_card_says_who_passed_beside_the_rules(evaluated: Evaluated, tmp_path: Path) -> None:
    file = tmp_path / "m-Q4_0.gguf"
    file.write_bytes(b"GGUF")
    write_gate([tmp_path], "0" * 64, {file.name: Judged(True, sha256(file), (), beside_rules=True)})
    judged = require_gate(file)
    assert judged is not None and judged.beside_rules
    (tmp_path / "metrics.json").write_text((evaluated.recipe.run.evaluation_dir / "metrics.json").read_text())
    assert "Gate, `m-Q4_0.gguf`: passed beside the rules, which GPT4All does not run." in card_section([file.name], tmp_path)


def test_encoder_recipes_that_ship_are_valid() -> None:
    paths = sorted((Path(__file__).parents[1] / "recipes").glob("encoders/*.yaml"))
    names = [read_strict(path, EncoderRecipe).name for path in paths]
    assert names == [f"encoder-{path.stem}" for path in paths]
    assert names == [
        "encoder-bert",
        "encoder-biobert",
        "encoder-camembert",
        "encoder-clinicalbert",
        "encoder-drbert",
        "encoder-roberta",
    ]


def call_of(text: str, lang: str = "fr", **patient: Any) -> Dialogue:
    call = next(iter(synthesize(1, seed=1)))
    turns = (call.turns[0].model_copy(update={"speaker": "patient", "text": text}), call.turns[-1])
    return call.model_copy(update={"lang": lang, "turns": turns, "patient": call.patient.model_copy(update=patient)})


@pytest.mark.parametrize(
    ("swap", "call", "expected"),
    [
        (
            "age",
            call_of("J'ai 30 ans et 30 de tension.", age=30),
            ["J'ai 30 ans et 30 de tension.", "J'ai 72 ans et 30 de tension."],
        ),
        ("age", call_of("Elle a 8 ans.", age=8), None),
        ("age", call_of("J'ai mal.", age=30), None),
        ("sex", call_of("Ma mère tousse, elle a chaud."), ["Ma mère tousse, elle a chaud.", "Mon père tousse, il a chaud."]),
        ("sex", call_of("My son is hot, she said.", "en"), ["My son is hot, she said.", "My daughter is hot, he said."]),
        ("sex", call_of("J'ai mal."), None),
        ("sex", call_of("Il y a deux jours, s'il vous plaît."), None),  # nobody is meant
        (
            "sex",
            call_of("Il dort, je crois qu'il a chaud."),
            ["Il dort, je crois qu'il a chaud.", "Elle dort, je crois qu'elle a chaud."],
        ),
        (
            "sex",
            call_of("I told her to sit, her arm hurts.", "en"),
            ["I told her to sit, her arm hurts.", "I told him to sit, his arm hurts."],
        ),
        ("name", call_of("J'ai mal."), ["Je m'appelle Jean Martin. J'ai mal.", "Je m'appelle Mohamed Benali. J'ai mal."]),
    ],
)
def test_swaps_change_one_thing(swap: str, call: Dialogue, expected: list[str] | None) -> None:
    found = SWAPS[swap](call)
    assert (None if found is None else [side.turns[0].text for side in found]) == expected
    assert found is None or all(side.turns[-1] == call.turns[-1] for side in found)


def test_flips_are_counted_in_pairs(evaluated: Evaluated) -> None:
    first, second = answers(evaluated.calls[:4]), answers(evaluated.calls[:4])
    changed = second[0].model_copy(update={"predicted": None})
    found = count_flips(first, [changed, *second[1:]], left_out=2)
    assert (found.calls, found.left_out, found.urgency_flips, found.specialty_flip_rate) == (4, 2, 1, 0.25)
    asked: list[str] = []

    def ask(calls: Any, name: str) -> list[Prediction]:
        asked.append(name)
        return answers(list(calls))

    flips = measure_swaps(evaluated.calls, ask)
    assert asked[-2:] == ["swap-name-0", "swap-name-1"] and flips["name"]["urgency_flips"] == 0
    assert flips["name"]["calls"] == len(evaluated.calls) and flips["name"]["urgency_flip_rate_interval"][1] > 0
