// What the page knows of the call: what the service stores, and, in this page's memory alone, the words as typed.

export const state = {
  session: null, // Session of docs/serve.md
  call: null, // Call
  typed: new Map(), // turn's number ─▶ {text, masks}: never stored, never sent again
  heard: null, // the language that the patient seems to speak
  draft: { speaker: "patient", text: "" },
  asStored: false, // show the stored text instead of the typed one
  live: { position: null, sentence: "", error: null }, // the triage on its way
  verdicts: {}, // triage's id ─▶ how it was judged
  bookings: [], // {booking, slot}; slot null: the roster has let go of it
  specialties: {}, // id ─▶ labels
  found: null, // slots of a search, instead of the triage's own
  lost: false, // no connection
};

/** A call from the service, whole. */
export function takeCall(call) {
  if (state.call?.id !== call.id) {
    state.typed = new Map();
    Object.assign(state, { heard: null, found: null, live: idle(), bookings: [], verdicts: {} });
  }
  state.call = call;
  if (call.triage && call.verdict) keepVerdict(call.triage.id, call.verdict);
}

/** No call in this window; what was typed in it is forgotten. */
export function forgetCall() {
  Object.assign(state, { call: null, typed: new Map(), draft: { speaker: "patient", text: "" } });
}

/** An answer to a turn; `typed` only when this page sent it. A turn that is known already brings no news of the rules. */
export function takeSaid(said, typed = null) {
  const { call } = state;
  if (typed !== null) state.typed.set(said.turn.i, { text: typed, masks: said.masks });
  if (call.turns.some((turn) => turn.i === said.turn.i)) return;
  const { flags, denied, floor, banner, questions } = said;
  const turns = [...call.turns, said.turn].sort((a, b) => a.i - b.i);
  state.call = { ...call, turns, flags, denied, floor, banner, questions, triage_is_old: call.triage !== null };
  state.heard = said.heard_lang;
}

/** A triage of this call. */
export function takeTriage(triage) {
  state.call = { ...state.call, triage, triage_is_old: false, questions: triage.questions };
  Object.assign(state, { live: idle(), found: null });
}

/** What must be in sight: raised by the rules, or by a model that says U1. */
export const bannerNow = () => state.call?.banner ?? state.call?.triage?.banner ?? null;

export const idle = () => ({ position: null, sentence: "", error: null });
export const isOpen = () => state.call?.status === "open";

/** How a triage was judged. */
export const keepVerdict = (triage, action) => (state.verdicts = { ...state.verdicts, [triage]: action });
