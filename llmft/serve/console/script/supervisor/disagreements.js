// Where operators changed, refused or escalated what the triage said.

import { make } from "../page.js";
import { when, word } from "../words.js";

const HEADS = ["at", "verdict", "said", "corrected", "reason", "by"];

/** `review(one)` opens the review of a disagreement's answer. */
export function showDisagreements(place, found, review) {
  const title = make("h2", { id: "disagreements-title" }, word("disagreements"));
  place.setAttribute("aria-labelledby", "disagreements-title");
  if (!found.length) {
    place.replaceChildren(title, make("p", { class: "hint" }, word("no_disagreements")));
    return;
  }
  const heads = [
    ...HEADS.map((head) => make("th", { scope: "col" }, word(head))),
    make("th", { scope: "col" }, make("span", { class: "unseen" }, word("review"))),
  ];
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, heads)),
    make(
      "tbody",
      {},
      found.map((one) => row(one, review)),
    ),
  );
  place.replaceChildren(
    title,
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "disagreements-title" }, table),
  );
}

function row(one, review) {
  return make(
    "tr",
    {},
    make("th", { scope: "row" }, when(one.at)),
    make(
      "td",
      {},
      word(`verdict_${one.action}`),
      " ",
      one.under_triage ? make("span", { class: "chip U1" }, word("under_triage")) : null,
    ),
    make("td", {}, labels(one.said)),
    make("td", {}, labels(one.corrected)),
    make("td", { class: "reason" }, reasonText(one.reason)),
    make("td", {}, one.by),
    make(
      "td",
      {},
      make(
        "button",
        { type: "button", class: "small", onclick: () => review(one), "aria-label": `${word("review")} ${when(one.at)}` },
        word("review"),
      ),
    ),
  );
}

function labels({ urgency, specialty, icd10, reply }) {
  return [
    urgency
      ? make("span", { class: `chip ${urgency}` }, urgency === "indetermine" ? word("urgency_indetermine") : urgency)
      : null,
    [specialty?.replaceAll("_", " "), icd10?.join(" ")]
      .filter(Boolean)
      .map((text) => ` ${text}`)
      .join(" ·"),
    reply ? make("q", {}, reply) : null,
  ];
}

/** A reason of the list in the reader's words, with what the operator added; one of another source as it stands. */
function reasonText(reason) {
  const [, name, rest] =
    /^(urgency|specialty|codes|missed_sign|false_sign|sentence|other)(?:: ([\s\S]*))?$/u.exec(reason ?? "") ?? [];
  return name ? [word(`reason_${name}`), rest].filter(Boolean).join(" : ") : (reason ?? "");
}
