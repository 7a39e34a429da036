// Where the operator types for both sides: Enter adds the turn and the other side speaks next.

import { byId, key, make, show } from "../page.js";
import { word } from "../words.js";
import { isOpen, state } from "./state.js";

const OTHER = { patient: "operator", operator: "patient" };

/** `add(speaker, text)` sends a turn, `keep()` stores the draft. */
export function makeComposer(add, keep) {
  const words = byId("words");

  function set(speaker, text = state.draft.text) {
    state.draft = { speaker, text };
    words.value = text;
    keep();
    render();
  }

  function send() {
    const text = words.value.trim();
    if (!text || !isOpen()) return;
    const { speaker } = state.draft;
    set(OTHER[speaker], "");
    add(speaker, text);
    words.focus();
  }

  words.addEventListener("input", () => {
    state.draft.text = words.value;
    keep();
  });
  words.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });

  function render() {
    const { speaker } = state.draft;
    const open = isOpen();
    show(byId("speakers"), [speaker, open, word("patient")], () =>
      ["patient", "operator"]
        .map((side) =>
          make(
            "label",
            { class: "side-of" },
            make("input", {
              type: "radio",
              name: "speaker",
              value: side,
              checked: side === speaker,
              disabled: !open,
              "data-focus": side,
              onchange: () => set(side, words.value),
            }),
            make("span", {}, word(side)),
          ),
        )
        .concat(key("Alt S")),
    );
    byId("speakers").setAttribute("aria-label", word("who_speaks"));
    byId("composer").dataset.speaker = speaker;
    words.placeholder = word(`type_${speaker}`);
    words.disabled = !open;
    byId("send").disabled = !open;
  }

  /** Words that the operator is to say; what was being typed before stays in front of them when it was the operator's. */
  function insert(text) {
    const before = state.draft.speaker === "operator" ? words.value.trim() : "";
    set("operator", before && before !== text ? `${before} ${text}` : text);
    words.focus();
    words.setSelectionRange(words.value.length, words.value.length);
  }

  return { render, insert, set, swap: () => set(OTHER[state.draft.speaker], words.value), focus: () => words.focus() };
}

/** The questions to ask next; the first three have a key. */
export function showQuestions(place, insert) {
  const questions = isOpen() ? state.call.questions.slice(0, 3) : [];
  show(
    place,
    [questions, word("next_questions")],
    () =>
      questions.length && [
        make("h3", { id: "next-title" }, word("next_questions")),
        make(
          "ol",
          { "aria-labelledby": "next-title" },
          questions.map((question, place_) => make("li", {}, questionButton(question, place_, insert))),
        ),
      ],
  );
}

function questionButton(question, place, insert) {
  const raises =
    question.raises_to &&
    make("span", { class: `chip ${question.raises_to}` }, word("could_raise", { level: question.raises_to }));
  const facts = { type: "button", class: "question", "aria-keyshortcuts": `Alt+${place + 1}`, "data-focus": `question-${place}` };
  return make(
    "button",
    { ...facts, onclick: () => insert(question.text) },
    key(`Alt ${place + 1}`),
    make("span", { class: "ask" }, question.text),
    raises,
  );
}
