// What the operator makes of a triage: accept, edit or reject with a reason; it is stored and taught from later.

import { key, make, openDialog, show, unique } from "../page.js";
import { closedLists, post } from "../service.js";
import { reader, word } from "../words.js";
import { keepVerdict, state } from "./state.js";

const REASONS = ["urgency", "specialty", "codes", "missed_sign", "false_sign", "sentence", "other"];
const URGENCIES = ["U1", "U2", "U3", "U4", "indetermine"];

/** The bar under the card. `say(text)` tells, `done()` redraws. */
export function makeVerdict(place, say, done) {
  async function store(feedback) {
    const { triage } = state.call;
    try {
      await post("/v1/feedback", { answer_id: triage.id, key: unique(), ...feedback });
    } catch (error) {
      return error.status ? word("wrong", { why: error.message }) : word("no_answer");
    }
    keepVerdict(triage.id, feedback.action);
    say(word("thanks"));
    done();
    return null;
  }

  async function accept() {
    const wrong = current() && (await store({ action: "accepted" }));
    if (wrong) say(wrong, true);
  }

  async function edit() {
    if (!current()) return;
    const lists = await closedLists();
    const { triage } = state.call;
    const codes = triage.icd10.map(({ code }) => code).join(" ");
    const urgencies = URGENCIES.map((id) => [id, `${id === "indetermine" ? "" : `${id} · `}${word(`urgency_${id}`)}`]);
    const content = [
      field("urgency", choice("urgency", urgencies, triage.urgency.id)),
      field("specialty", choice("specialty", labelled(lists.specialties), triage.specialty.id)),
      field(
        "codes",
        make("input", { id: "field-codes", name: "codes", value: codes, "aria-describedby": "codes-hint", autocomplete: "off" }),
      ),
      make("p", { class: "hint", id: "codes-hint" }, word("codes_hint")),
      field("sentence", make("textarea", { id: "field-sentence", name: "sentence", rows: "2" }, triage.sentence)),
      ...reasonAndComment(false),
    ];
    openDialog(word("edit"), word("close"), content, (form) => {
      const icd10 = form
        .get("codes")
        .toUpperCase()
        .split(/[\s,;]+/u)
        .filter(Boolean);
      const strange = icd10.find((code) => !(code in lists.icd10));
      if (strange) return word("unknown_code", { code: strange });
      const correction = changed(triage, {
        urgency: form.get("urgency"),
        specialty: form.get("specialty"),
        icd10,
        reply: form.get("sentence").trim(),
      });
      return Object.keys(correction).length ? store({ action: "edited", correction, ...why(form) }) : word("unchanged");
    });
  }

  function reject() {
    if (!current()) return;
    openDialog(word("reject"), word("close"), reasonAndComment(true), (form) => store({ action: "rejected", ...why(form) }));
  }

  function render() {
    const triage = current();
    const given = triage && state.verdicts[triage.id];
    show(place, [triage?.id, given, reader.lang], () => {
      if (!triage) return [];
      const told = given && make("p", { class: `given ${given}`, role: "status" }, "✓ ", word(`verdict_${given}`));
      return [
        make("h3", { class: told ? "unseen" : "" }, word("your_verdict")),
        told || null,
        make(
          "p",
          { class: "line" },
          button("accept", "Alt A", accept, "primary"),
          button("edit", "Alt M", edit),
          button("reject", "Alt R", reject),
        ),
      ];
    });
  }

  return { render, accept, edit, reject, escalated: () => (current() ? store({ action: "escalated" }) : null) };
}

const current = () => state.call?.triage ?? null;

const button = (name, keys, act, kind = "") =>
  make("button", { type: "button", class: kind, onclick: act, "data-focus": name }, word(name), " ", key(keys));

const field = (name, control) => make("p", { class: "field" }, make("label", { for: `field-${name}` }, word(name)), control);

const choice = (name, pairs, chosen, facts = {}) =>
  make(
    "select",
    { id: `field-${name}`, name, ...facts },
    pairs.map(([id, text]) => make("option", { value: id, selected: id === chosen }, text)),
  );

function reasonAndComment(required) {
  const reasons = [["", word("choose")], ...REASONS.map((id) => [id, word(`reason_${id}`)])];
  return [
    field("reason", choice("reason", reasons, "", { required, autofocus: required })),
    field("comment", make("textarea", { id: "field-comment", name: "comment", rows: "2", maxlength: "2000" })),
    make("p", { class: "line end" }, make("button", { type: "submit", class: "primary" }, word("confirm"))),
  ];
}

/** The fields of a correction that say something else than the triage. */
function changed(triage, { urgency, specialty, icd10, reply }) {
  const before = triage.icd10.map(({ code }) => code);
  return {
    ...(urgency !== triage.urgency.id && { urgency }),
    ...(specialty !== triage.specialty.id && { specialty }),
    ...(icd10.join() !== before.join() && { icd10 }),
    ...(reply && reply !== triage.sentence && { reply }),
  };
}

/** The reason as it is stored: its name, then the operator's own words. */
function why(form) {
  const reason = [form.get("reason"), form.get("comment").trim()].filter(Boolean).join(": ");
  return reason ? { reason } : {};
}

const labelled = (list) => Object.entries(list).map(([id, labels]) => [id, labels[reader.lang]]);
