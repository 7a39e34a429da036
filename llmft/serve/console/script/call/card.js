// The triage as the operator reads it: how urgent, for whom, why, what is missing.

import { key, make, show } from "../page.js";
import { number, percent, reader, word } from "../words.js";
import { isOpen, state } from "./state.js";

/** `point(turn)` shows a turn, `insert(text)` puts words where the operator types. */
export function showCard(place, point, insert) {
  const { call, live } = state;
  const { triage, triage_is_old: old, floor, flags, denied } = call;
  const facts = [triage, old, floor, flags, denied, live.sentence, isOpen(), reader.lang];
  show(place, facts, () => {
    if (!urgencyNow(call)) return make("p", { class: "empty" }, live.sentence || word("no_triage"));
    const raised = urgencyNow(call) !== triage?.urgency.id;
    return [
      raised ? urgencyBlock(floor, null, "floor") : urgencyBlock(triage.urgency.id, triage, triage.decided_by, old),
      triage && confidence(triage),
      triage && orientation(triage),
      signs(flags, denied, point),
      triage?.missing.length
        ? section(
            "missing",
            make(
              "ul",
              { class: "chips" },
              triage.missing.map(({ label }) => make("li", { class: "chip" }, label)),
            ),
          )
        : null,
      triage && sentence(triage, insert),
      triage && section("summary", make("p", {}, triage.summary)),
      triage && warnings(triage, point),
      triage && madeBy(triage),
    ];
  });
}

/** The urgency in one word, for screens on which the card is out of sight. */
export function showLevel(place, call) {
  const id = call && urgencyNow(call);
  show(
    place,
    [id, reader.lang],
    () => id && make("span", { class: `chip ${id}` }, `${id === "indetermine" ? "" : `${id} · `}${word(`urgency_${id}`)}`),
  );
}

/** What the rules heard since the triage was made counts at once: it can only raise the urgency. */
function urgencyNow({ triage, floor }) {
  const raised = floor && (!triage || rankOf(floor) < (triage.urgency.rank || 9));
  return raised ? floor : (triage?.urgency.id ?? null);
}

/** The line above the card: how old it is, or where the next one stands. */
export function showState(place, button) {
  const { call, live } = state;
  const text = stateText(call, live);
  show(place, [text], () => text);
  button.disabled = !isOpen() || !call.turns.some((turn) => turn.speaker === "patient");
}

function stateText(call, live) {
  if (live.error) return word("failed");
  if (live.position > 0) return word("queue", { position: live.position });
  if (live.position === 0) return word("making");
  if (!call.triage) return "";
  return word(call.triage_is_old ? "old" : "current");
}

const rankOf = (id) => Number(id.slice(1));

function urgencyBlock(id, triage, decided, old) {
  const by = decided === "floor" ? word("floor_only") : word(`by_${decided}`);
  const model = triage?.model_said.urgency;
  const rank = id === "indetermine" ? 0 : rankOf(id);
  const bars = [1, 2, 3, 4].map((bar) => make("i", { class: rank && bar <= 5 - rank ? "on" : "" }));
  return make(
    "div",
    { class: `urgency ${id}${old ? " old" : ""}`, "data-urgency": id },
    make(
      "div",
      { class: "urgency-words" },
      make(
        "p",
        { class: "urgency-name" },
        make("strong", {}, word(`urgency_${id}`)),
        rank ? make("span", { class: "level" }, id) : null,
      ),
      make(
        "p",
        { class: "decided" },
        make("span", {}, by),
        model && model !== id ? make("span", {}, word("model_said", { urgency: model })) : null,
      ),
    ),
    make("span", { class: "bars", "aria-hidden": "true" }, bars),
  );
}

function confidence(triage) {
  const value = triage.confidence;
  const text = value === null ? word("no_confidence") : percent(value);
  const meter =
    value === null
      ? null
      : make("meter", { min: 0, max: 1, low: 0.5, high: 0.75, optimum: 1, value, "aria-label": word("confidence") });
  return make(
    "div",
    { class: "pair" },
    make("h3", {}, word("confidence")),
    make("p", { class: "line" }, meter, make("span", {}, text)),
  );
}

function orientation(triage) {
  const codes = triage.icd10.length
    ? make(
        "ul",
        { class: "codes" },
        triage.icd10.map(({ code, label }) => make("li", {}, make("code", {}, code), " ", label)),
      )
    : make("p", { class: "hint" }, word("no_codes"));
  return [
    make("div", { class: "pair" }, make("h3", {}, word("specialty")), make("p", { class: "strong" }, triage.specialty.label)),
    make("div", { class: "pair" }, make("h3", {}, word("codes")), codes),
  ];
}

function signs(flags, denied, point) {
  const list = flags.length
    ? make(
        "ul",
        { class: "signs" },
        flags.map((flag) => sign(flag, point)),
      )
    : make("p", { class: "hint" }, word("no_signs"));
  const past =
    denied.length &&
    make(
      "details",
      {},
      make("summary", {}, `${word("denied")} (${denied.length})`),
      make(
        "ul",
        { class: "signs denied" },
        denied.map((flag) => sign(flag, point)),
      ),
    );
  return section("signs", list, past || null);
}

function sign(flag, point) {
  const quote = flag.quote ? make("q", {}, flag.quote) : null;
  const where = make(
    "button",
    { type: "button", class: "quiet small", "data-focus": `sign-${flag.id}`, onclick: () => point(flag.turn) },
    word("in_turn", { n: flag.turn + 1 }),
  );
  return make(
    "li",
    { class: flag.urgency },
    make("p", { class: "line" }, make("b", {}, flag.label), make("span", { class: `chip ${flag.urgency}` }, flag.urgency), where),
    make("p", { class: "hint" }, quote, quote ? " · " : "", word("why", { rule: flag.rule, source: flag.source })),
  );
}

function sentence(triage, insert) {
  if (!triage.sentence) return null;
  const button = make(
    "button",
    { type: "button", class: "small", "data-focus": "say", disabled: !isOpen(), onclick: () => insert(triage.sentence) },
    word("say_it"),
    " ",
    key("Alt P"),
  );
  return section("sentence", make("blockquote", {}, triage.sentence), make("p", { class: "line end" }, button));
}

function warnings(triage, point) {
  const left = triage.turns_left_out ? [{ text: word("left_out", { n: triage.turns_left_out }), turn: null }] : [];
  const all = [...triage.warnings, ...left];
  if (!all.length) return null;
  const where = (turn) =>
    turn !== null &&
    make("button", { type: "button", class: "quiet small", onclick: () => point(turn) }, word("in_turn", { n: turn + 1 }));
  return section(
    "warnings",
    make(
      "ul",
      { class: "warnings" },
      all.map(({ text, turn }) => make("li", {}, text, " ", where(turn))),
    ),
  );
}

function madeBy({ versions, waited_s: waited, generated_s: generated }) {
  const row = (name, value) =>
    value && [make("dt", {}, name), make("dd", {}, make("code", { title: value }, value.slice(0, 12)))];
  const rows = [
    ["llmft", versions.llmft],
    [word("model"), versions.model],
    [word("adapter"), versions.adapter],
    [word("rules"), versions.rules],
    [word("prompt"), versions.prompt],
    [word("roster"), versions.roster],
  ];
  return make(
    "details",
    { class: "made-by" },
    make("summary", {}, word("made_by")),
    make(
      "dl",
      {},
      rows.map(([name, value]) => row(name, value)),
    ),
    make("p", { class: "hint" }, word("took", { waited: number(waited), generated: number(generated) })),
  );
}

const section = (name, ...content) => make("section", { class: name }, make("h3", {}, word(name)), content);
