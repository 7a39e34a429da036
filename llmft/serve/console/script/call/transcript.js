// The conversation as it is shown: stored turns, then those on their way.

import { make, show, showList } from "../page.js";
import { when, word } from "../words.js";
import { cut, marksOf } from "./marks.js";
import { state } from "./state.js";

export function showTranscript(list, waiting, lost) {
  const { call, typed, asStored } = state;
  const own = waiting.filter((item) => item.call === call.id);
  const stored = call.turns.map((turn) => ({
    key: `turn-${turn.i}`,
    facts: [turn, typed.get(turn.i), call.flags.filter((flag) => flag.turn === turn.i), asStored, word("patient")],
    build: () => storedTurn(turn),
  }));
  const coming = own.map((item) => ({
    key: item.key,
    facts: [item.text, lost, word("patient")],
    build: () => row("coming", item.speaker, word(lost ? "waiting" : "sending"), [item.text]),
  }));
  const items = [...stored, ...coming];
  const pane = list.parentElement;
  const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 80;
  if (items.length) showList(list, items, (item) => item.build());
  else show(list, ["empty", word("no_turns")], () => make("li", { class: "empty" }, word("no_turns")));
  if (atEnd || own.length) pane.scrollTop = pane.scrollHeight;
}

/** Bring a turn into sight, as when its evidence is asked for. */
export function pointAt(list, number) {
  const turn = list.querySelector(`[data-key="turn-${number}"]`);
  turn?.scrollIntoView({ block: "center" });
  turn?.classList.add("pointed");
  setTimeout(() => turn?.classList.remove("pointed"), 1600);
}

function storedTurn(turn) {
  const { text, marks } = marksOf(turn, state.typed.get(turn.i), state.call.flags, state.asStored);
  const flagged = marks.some((mark) => mark.kind === "flag") ? "flagged" : "";
  return row(flagged, turn.speaker, when(turn.at), cut(text, marks).map(stretch));
}

function row(kind, speaker, time, words) {
  return make(
    "li",
    { class: `turn ${kind} by-${speaker}` },
    make("p", { class: "who" }, make("b", {}, word(speaker)), make("span", { class: "time" }, time)),
    make("p", { class: "said", dir: "auto" }, ...words),
  );
}

function stretch({ text, end, marks }) {
  const mask = marks.find((mark) => mark.kind === "mask");
  const flags = marks.filter((mark) => mark.kind === "flag");
  let shown = text;
  if (mask) {
    const title = mask.placeholder ? word("mask_mark", { placeholder: mask.placeholder }) : null;
    shown = make("span", { class: mask.placeholder ? "masked" : "placeholder", title }, shown);
  }
  if (!flags.length) return shown;
  const label = word("flag_mark", { label: flags.map(({ flag }) => flag.label).join(", ") });
  const isLast = flags.some((flag) => flag.end === end); // what is only heard is said once
  return make(
    "mark",
    { class: `evidence ${worst(flags)}`, title: label },
    shown,
    isLast && make("span", { class: "unseen" }, ` (${label})`),
  );
}

const worst = (flags) => flags.map(({ flag }) => flag.urgency).sort()[0];
