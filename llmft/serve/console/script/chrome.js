// What all pages have: the language and theme switches, who is signed in, and the way out.

import { make } from "./page.js";
import { signOut } from "./service.js";
import { reader, word, writeWords } from "./words.js";

const THEMES = ["auto", "light", "dark"];

/**
 * Fill the place for choices; `again()` redraws the page in the other language, `leaving(go)` calls `go` when nothing
 * is lost by signing out.
 */
export function showChoices(place, session, again, leaving = (go) => go()) {
  const language = make(
    "button",
    {
      type: "button",
      class: "quiet",
      lang: reader.lang === "fr" ? "en" : "fr",
      id: "language",
      onclick: () => {
        reader.lang = reader.lang === "fr" ? "en" : "fr";
        localStorage.setItem("llmft.lang", reader.lang);
        showChoices(place, session, again, leaving);
        document.getElementById("language").focus();
        writeWords();
        again();
      },
    },
    word("language"),
  );
  place.replaceChildren(language, themeButton(), ...(session && !session.keyless ? [who(session), out(leaving)] : []));
}

function themeButton() {
  const now = () => document.documentElement.dataset.theme ?? "auto";
  const button = make("button", { type: "button", class: "quiet icon", id: "theme" });
  const tell = () => {
    const text = word(`theme_${now()}`);
    button.setAttribute("aria-label", text);
    button.title = text;
    button.textContent = { auto: "◐", light: "☀", dark: "☾" }[now()];
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    localStorage.setItem("llmft.theme", next);
    tell();
  });
  tell();
  return button;
}

const who = (session) => make("span", { class: "hint who-am-i" }, `${session.name} · ${word(`role_${session.role}`)}`);

const out = (leaving) => make("button", { type: "button", class: "quiet", onclick: () => leaving(goOut) }, word("sign_out"));

async function goOut() {
  sessionStorage.clear();
  await signOut().catch(() => null);
  location.replace("/sign-in");
}

/** The line that says which model answers. */
export function showModel(place, session) {
  const { name, sha256 } = session.model;
  const facts = [`${word("model")} ${name}`, sha256?.slice(0, 8), session.keyless ? word("keyless") : null];
  place.textContent = facts.filter(Boolean).join(" · ");
}
