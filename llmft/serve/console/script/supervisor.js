// The supervisor's page: how much, how often people disagree, whether the calls have changed, and where to look.

import { showChoices, showModel } from "./chrome.js";
import { byId, make, openDialog, unique } from "./page.js";
import { get, openSession, post } from "./service.js";
import { showDisagreements } from "./supervisor/disagreements.js";
import { showDrift, showLatency, showOverrides, showTiles, showVolumes } from "./supervisor/panels.js";
import { reader, word, writeWords } from "./words.js";

const PERIODS = [7, 30, 90];
const page = { session: null, days: 7, summary: null, found: [] };

function draw() {
  byId("days").setAttribute("aria-label", word("days"));
  byId("days").replaceChildren(
    ...PERIODS.map((days) =>
      make(
        "button",
        { type: "button", class: "quiet", "aria-pressed": String(days === page.days), onclick: () => choose(days) },
        word("days_n", { n: days }),
      ),
    ),
  );
  if (!page.summary) return;
  showTiles(byId("tiles"), page.summary);
  showVolumes(byId("volumes"), page.summary);
  showOverrides(byId("overrides"), page.summary);
  showDrift(byId("drift"), page.summary);
  showLatency(byId("latency"), page.summary);
  showDisagreements(byId("disagreements"), page.found, review);
}

function choose(days) {
  page.days = days;
  draw();
  byId("days").querySelector("[aria-pressed=true]").focus();
  load();
}

async function load() {
  try {
    const [summary, { disagreements }] = await Promise.all([
      get(`/v1/supervisor/summary?days=${page.days}`),
      get("/v1/supervisor/disagreements?limit=50"),
    ]);
    Object.assign(page, { summary, found: disagreements });
    draw();
  } catch (error) {
    tell(error.status === 403 ? word("not_yours") : error.status ? error.message : word("no_answer"));
  }
}

function review(one) {
  const levels = ["U1", "U2", "U3", "U4", "indetermine"];
  const options = levels.map((id) =>
    make(
      "option",
      { value: id, selected: id === one.said.urgency },
      `${id === "indetermine" ? "" : `${id} · `}${word(`urgency_${id}`)}`,
    ),
  );
  const content = [
    make(
      "p",
      { class: "field" },
      make("label", { for: "review-urgency" }, word("review_urgency")),
      make("select", { id: "review-urgency", name: "urgency" }, options),
    ),
    make(
      "p",
      { class: "field" },
      make("label", { for: "review-reason" }, word("comment")),
      make("textarea", { id: "review-reason", name: "reason", rows: "3", maxlength: "2000" }),
    ),
    make("p", { class: "line end" }, make("button", { type: "submit", class: "primary" }, word("confirm"))),
  ];
  openDialog(word("review_title"), word("close"), content, async (form) => {
    const reason = form.get("reason").trim();
    try {
      const stored = await post("/v1/supervisor/reviews", {
        answer_id: one.answer,
        urgency: form.get("urgency"),
        key: unique(),
        ...(reason && { reason }),
      });
      tell(word(stored.under_triage ? "review_under" : "review_stored"));
      load();
      return null;
    } catch (error) {
      return error.status ? error.message : word("no_answer");
    }
  });
}

function tell(text) {
  byId("notice-line").textContent = text;
}

writeWords();
byId("refresh").addEventListener("click", load);
page.session = await openSession();
showModel(byId("model"), page.session);
showChoices(byId("choices"), page.session, () => (showModel(byId("model"), page.session), draw()));
draw();
await load();
document.documentElement.dataset.ready = reader.lang;
