// The dialogs of a call: import a transcript, end the call, the keys, sign in again, sign out.

import { key, make, openDialog } from "../page.js";
import { signIn } from "../service.js";
import { word } from "../words.js";
import { readTranscript, swapped } from "./transcript_text.js";

const MAX_BYTES = 1_000_000;

/** `add(turns)` sends them and answers with a text of complaint, or nothing. */
export function importDialog(add) {
  let turns = [];
  const count = make("p", { class: "hint", role: "status" });
  const preview = make("ol", { class: "preview", tabindex: "0", "aria-label": word("conversation") });
  const text = make("textarea", { rows: "6", id: "import-text", autofocus: true, oninput: () => read() });
  const file = make("input", {
    type: "file",
    id: "import-file",
    accept: ".txt,.srt,.vtt,.json,text/*,application/json",
    onchange: open,
  });
  const swap = make("button", { type: "button", onclick: () => tell(swapped(turns)) }, word("import_swap"));

  async function open() {
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > MAX_BYTES) {
      count.textContent = word("import_large");
      return;
    }
    text.value = await chosen.text();
    read();
  }

  function read() {
    tell(readTranscript(text.value));
  }

  function tell(found) {
    turns = found;
    const facts = { n: turns.length, p: turns.filter((turn) => turn.speaker === "patient").length };
    count.textContent = turns.length ? word("import_count", facts) : word("import_none");
    const lines = turns
      .slice(0, 12)
      .map((turn) => make("li", { class: `by-${turn.speaker}` }, make("b", {}, word(turn.speaker)), " ", turn.text));
    preview.replaceChildren(...lines, ...(turns.length > 12 ? [make("li", {}, "…")] : []));
  }

  const content = [
    make("label", { for: "import-text" }, word("import_paste")),
    text,
    make("p", { class: "hint" }, word("import_hint")),
    make("p", { class: "line" }, make("label", { for: "import-file" }, word("import_file")), file),
    count,
    preview,
    make("p", { class: "line end" }, swap, make("button", { type: "submit", class: "primary" }, word("import_go"))),
  ];
  openDialog(word("import_title"), word("close"), content, () => (turns.length ? add(turns) : word("import_none")));
}

/** `end(status)` ends the call and answers with a text of complaint, or nothing. */
export function endDialog(chosen, end) {
  const choice = (status) =>
    make(
      "label",
      { class: "choice" },
      make("input", { type: "radio", name: "status", value: status, checked: status === chosen, autofocus: status === chosen }),
      word(`end_${status}`),
    );
  const content = [
    make("fieldset", {}, make("legend", { class: "unseen" }, word("end_title")), ["done", "escalated", "abandoned"].map(choice)),
    make("p", { class: "line end" }, make("button", { type: "submit", class: "primary" }, word("end_call"))),
  ];
  openDialog(word("end_title"), word("close"), content, (form) => end(form.get("status")));
}

const KEYS = [
  ["↵", "key_send"],
  ["⇧ ↵", "key_line"],
  ["Alt S", "key_speaker"],
  ["Alt 1 2 3", "key_question"],
  ["Alt P", "key_sentence"],
  ["Alt C", "key_typing"],
  ["Alt T", "triage_now"],
  ["Alt A", "accept"],
  ["Alt M", "edit"],
  ["Alt R", "reject"],
  ["Alt N", "new_call"],
  ["Alt I", "import"],
  ["Alt L", "end_call"],
  ["Alt H", "keys"],
];

export function keysDialog() {
  const rows = KEYS.flatMap(([keys, name]) => [make("dt", {}, key(keys)), make("dd", {}, word(name))]);
  const close = make(
    "p",
    { class: "line end" },
    make("button", { type: "submit", class: "primary", autofocus: true }, word("close")),
  );
  openDialog(word("keys_title"), word("close"), [make("dl", { class: "keys" }, rows), close], () => null);
}

/** `back(session)` goes on with the new session. */
export function signInDialog(back) {
  const content = [
    make("p", {}, word("signed_out")),
    make("label", { for: "again-key" }, word("your_key")),
    make("input", { type: "password", id: "again-key", name: "key", required: true, autocomplete: "off", autofocus: true }),
    make("p", { class: "line end" }, make("button", { type: "submit", class: "primary" }, word("enter"))),
  ];
  openDialog(word("sign_in"), word("close"), content, async (form) => {
    try {
      await back(await signIn(form.get("key")));
      return null;
    } catch (error) {
      return error.status ? error.message : word("no_answer");
    }
  });
}

/** `go()` signs out although turns wait. */
export function leaveDialog(waiting, go) {
  const content = [
    make("p", {}, word("leave_waits", { n: waiting })),
    make("p", { class: "line end" }, make("button", { type: "submit" }, word("leave_anyway"))),
  ];
  openDialog(word("sign_out"), word("close"), content, async () => {
    await go();
    return null;
  });
}
