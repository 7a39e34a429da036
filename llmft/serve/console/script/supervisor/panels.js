// The panels of numbers.

import { make } from "../page.js";
import { number, percent, reader, word } from "../words.js";
import { barsByDay, indexBar, legend, pairBar, wholeLine } from "./charts.js";

const RATES = [
  ["overridden", "of_verdicts"],
  ["under_triage", "of_verdicts"],
  ["red_flag", "of_answers"],
  ["decided_by_rules", "of_answers"],
  ["abstained", "of_answers"],
  ["format_valid", "of_answers"],
];
const ACTIONS = ["accepted", "edited", "rejected", "escalated"];
const SHOWN = 5; // classes of a label, those that moved most

export function showTiles(place, { volumes, rates }) {
  const sum = (name) => volumes.reduce((total, day) => total + day[name], 0);
  const counts = ["calls", "answers", "feedback"].map((name) => tile(number(sum(name)), word(name)));
  const shares = RATES.map(([name, of]) =>
    tile(
      rates[name] === null ? "–" : percent(rates[name]),
      word(`rate_${name}`),
      word(of),
      name === "under_triage" && rates[name] > 0 ? "bad" : "",
    ),
  );
  place.replaceChildren(make("h2", { class: "unseen", id: "tiles-title" }, word("tiles_title")), make("dl", {}, counts, shares));
}

const tile = (value, name, of = "", kind = "") =>
  make("div", { class: `tile ${kind}` }, make("dt", {}, name, of ? make("span", {}, ` · ${of}`) : null), make("dd", {}, value));

export function showVolumes(place, { volumes, days }) {
  const kinds = [word("answers"), word("feedback")];
  const rows = everyDay(volumes, days).map((day) => ({ name: dayName(day.day), values: [day.answers, day.feedback] }));
  const lines = volumes.map((day) => [dayName(day.day), day.calls, day.answers, day.feedback]);
  fill(
    place,
    "volumes",
    volumes.length
      ? [barsByDay(word("volumes_label"), rows, kinds), asTable(["day", "calls", "answers", "feedback"], lines)]
      : nothing(),
  );
}

/** The days of the period without gaps, so that a quiet day is seen as one. */
function everyDay(volumes, days) {
  const known = new Map(volumes.map((volume) => [volume.day, volume]));
  return Array.from({ length: days }, (_, back) => {
    const day = new Date(Date.now() - (days - 1 - back) * 86_400_000).toISOString().slice(0, 10);
    return known.get(day) ?? { day, calls: 0, answers: 0, feedback: 0 };
  });
}

const dayName = (day) =>
  new Intl.DateTimeFormat(reader.lang, { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(`${day}T00:00Z`));

export function showOverrides(place, { overrides }) {
  const parts = ACTIONS.map((name) => ({ name: word(`action_${name}`), value: overrides[name] ?? 0, class: name }));
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  const label = parts.map((part) => `${part.name} ${part.value}`).join(", ");
  const rows = parts.map((part) =>
    make(
      "li",
      {},
      make("i", { class: part.class }),
      make("span", { class: "grow" }, part.name),
      make("b", {}, number(part.value)),
      make("span", { class: "share" }, total ? percent(part.value / total) : ""),
    ),
  );
  fill(place, "overrides", total ? [wholeLine(label, parts), make("ul", { class: "parts" }, rows)] : nothing());
}

export function showDrift(place, { drift, drift_against: against }) {
  const what = against === "the time before" ? word("the_time_before") : against;
  fill(
    place,
    "drift",
    make("p", { class: "hint" }, word("drift_against", { what })),
    make(
      "div",
      { class: "drifts" },
      ["urgency", "specialty", "language"]
        .map((what) => drift.find((one) => one.what === what))
        .filter(Boolean)
        .map(oneDrift),
    ),
    legend([word("share_recent"), word("share_before")]),
  );
}

function oneDrift({ what, psi, level, reference, recent }) {
  const few = level === "too few"; // then the number says nothing
  const name = word(`drift_${what}`);
  const told = word(`level_${level.replace(" ", "_")}`);
  const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0) || 1;
  const share = (counts, one) => (counts[one] ?? 0) / total(counts);
  const names = [...new Set([...Object.keys(reference), ...Object.keys(recent)])];
  const moved = names.sort(
    (a, b) =>
      Math.abs(share(recent, b) - share(reference, b)) - Math.abs(share(recent, a) - share(reference, a)) || (a < b ? -1 : 1),
  );
  const rows = moved
    .slice(0, SHOWN)
    .map((one) =>
      make(
        "li",
        {},
        make("span", {}, one === "indetermine" ? word("urgency_indetermine") : one.replaceAll("_", " ")),
        pairBar(
          `${one}: ${percent(share(recent, one))}, ${word("share_before")} ${percent(share(reference, one))}`,
          share(reference, one),
          share(recent, one),
        ),
        make("span", { class: "share" }, percent(share(recent, one))),
      ),
    );
  return make(
    "div",
    { class: "one-drift" },
    make("h3", {}, name),
    make(
      "p",
      { class: "line" },
      make("b", { class: "psi" }, few ? "–" : number(psi)),
      make("span", { class: `chip ${level.replace(" ", "-")}` }, told),
    ),
    indexBar(few ? `${name}: ${told}` : `${name}: PSI ${number(psi)}, ${told}`, few ? 0 : psi, level),
    make("ul", { class: "shares" }, rows),
  );
}

export function showLatency(place, { latency }) {
  const rows = Object.entries(latency).map(([name, value]) => [
    make("dt", {}, word(name)),
    make("dd", {}, value === null ? "–" : word("seconds", { n: number(value) })),
  ]);
  fill(place, "latency", make("dl", { class: "latency" }, rows));
}

function asTable(heads, lines) {
  return make(
    "details",
    {},
    make("summary", {}, word("as_table")),
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": word("as_table") },
      make(
        "table",
        {},
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            heads.map((head) => make("th", { scope: "col" }, word(head))),
          ),
        ),
        make(
          "tbody",
          {},
          lines.map(([first, ...rest]) =>
            make(
              "tr",
              {},
              make("th", { scope: "row" }, first),
              rest.map((value) => make("td", {}, number(value))),
            ),
          ),
        ),
      ),
    ),
  );
}

function fill(place, title, ...content) {
  place.setAttribute("aria-labelledby", `${title}-title`);
  place.replaceChildren(make("h2", { id: `${title}-title` }, word(title)), ...content.flat());
}

const nothing = () => make("p", { class: "hint" }, word("no_data"));
