// The pages' words, French and English; the language is the reader's own choice, a call has another of its own.

import { DESK } from "./words_desk.js";
import { SUPERVISION } from "./words_supervision.js";

const SHARED = {
  notice: ["Aide à la décision, pas un dispositif médical.", "Decision support, not a medical device."],
  theme_auto: ["Thème : système", "Theme: system"],
  theme_light: ["Thème : clair", "Theme: light"],
  theme_dark: ["Thème : sombre", "Theme: dark"],
  language: ["English", "Français"],
  sign_out: ["Se déconnecter", "Sign out"],
  close: ["Fermer", "Close"],
  cancel: ["Annuler", "Cancel"],
  role_operator: ["opérateur", "operator"],
  role_supervisor: ["superviseur", "supervisor"],
  keyless: ["sans clé, cette machine seulement", "no key, this machine only"],
  model: ["modèle", "model"],
  sign_in: ["Connexion", "Sign in"],
  sign_in_why: [
    "Votre clé vous a été remise par l'administrateur du service. Elle n'est pas gardée dans ce navigateur.",
    "Your key was given to you by whoever runs the service. It is not kept in this browser.",
  ],
  your_key: ["Clé d'accès", "Access key"],
  enter: ["Entrer", "Enter"],
  no_answer: [
    "Le service ne répond pas ; vérifiez le réseau et recommencez.",
    "The service does not answer; check the network and try again.",
  ],
};

const WORDS = { ...SHARED, ...DESK, ...SUPERVISION };

export const reader = { lang: localStorage.getItem("llmft.lang") ?? (navigator.language.startsWith("en") ? "en" : "fr") };

/** The text of `name` in the reader's language; `{x}` is filled from `facts`. */
export function word(name, facts = {}) {
  const pair = WORDS[name];
  if (!pair) throw new Error(`no words for ${name}`);
  return pair[reader.lang === "fr" ? 0 : 1].replace(/\{(\w+)\}/g, (_, fact) => facts[fact]);
}

/** Write the words of everything that names them, and the page's language. */
export function writeWords(root = document) {
  document.documentElement.lang = reader.lang;
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
}

const inLang = (options) => (value) => new Intl.NumberFormat(reader.lang, options).format(value);
export const percent = (value) => inLang({ style: "percent", maximumFractionDigits: value < 0.1 && value > 0 ? 1 : 0 })(value);
export const number = (value) => inLang({ maximumFractionDigits: 2 })(value);

/** A time as one reads it on a clock, with the day when it is not today. */
export function when(text) {
  const time = new Date(text);
  const today = time.toDateString() === new Date().toDateString();
  const day = today ? {} : { weekday: "short", day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(reader.lang, { ...day, hour: "2-digit", minute: "2-digit" }).format(time);
}
