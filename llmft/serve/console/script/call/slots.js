// Free appointments that fit the triage: look, book, give back.

import { make, show, unique } from "../page.js";
import { get, post } from "../service.js";
import { reader, when, word } from "../words.js";
import { isOpen, state } from "./state.js";

/** `say(text, isWrong)` tells, `done()` redraws. */
export function makeSlots(place, say, done) {
  const keys = new Map(); // a slot's id ─▶ the key of its booking, the same when it is asked for again

  async function tried(act) {
    try {
      await act();
    } catch (error) {
      if (error.status === 409) await search(lastSearch()).catch(() => null);
      say(error.status === 409 ? word("taken") : error.status ? word("wrong", { why: error.message }) : word("no_answer"), true);
    }
    done();
  }

  const book = (slot) =>
    tried(async () => {
      if (!keys.has(slot.id)) keys.set(slot.id, unique());
      const booking = await post("/v1/roster/bookings", { slot_id: slot.id, call_id: state.call.id, key: keys.get(slot.id) });
      state.bookings = [...state.bookings.filter((known) => known.booking.id !== booking.id), { booking, slot }];
    });

  const release = ({ booking, slot }) =>
    tried(async () => {
      await post(`/v1/roster/bookings/${encodeURIComponent(booking.id)}/release`);
      keys.delete(slot.id);
      state.bookings = state.bookings.filter((known) => known.booking.id !== booking.id);
    });

  const lastSearch = () => new FormData(place.querySelector("form"));

  async function search(form) {
    const asked = new URLSearchParams(
      [["specialty", state.call.triage.specialty.id], ["limit", "6"], ...form].filter(([, value]) => value),
    );
    state.found = (await get(`/v1/roster/slots?${asked}`)).slots;
  }

  function render() {
    const triage = state.call?.triage;
    const slots = (state.found ?? triage?.slots ?? []).filter(
      (slot) => !state.bookings.some((known) => known.slot.id === slot.id),
    );
    const open = isOpen();
    show(place, [slots, state.bookings, state.specialties, Boolean(triage), open, reader.lang], () => {
      if ((!triage || triage.urgency.id === "U1") && !state.bookings.length) return []; // no appointment may delay an emergency
      const booked = state.bookings.map((known) =>
        row(known.slot, "booked", open && act("release", known.slot, () => release(known))),
      );
      const free = slots.slice(0, 6).map((slot) => row(slot, "free", open && act("book", slot, () => book(slot))));
      return [
        make("h3", { id: "slots-title" }, word("slots")),
        make("ul", { "aria-labelledby": "slots-title" }, booked, free),
        free.length || booked.length ? null : make("p", { class: "hint" }, word("no_slots")),
        triage && open ? searchForm() : null,
      ];
    });
  }

  function searchForm() {
    const input = (name, facts) =>
      make(
        "label",
        {},
        make("span", {}, word(facts.label)),
        make("input", { name, autocomplete: "off", "data-focus": `slots-${name}`, ...facts, label: null }),
      );
    const languages = [
      ["", word("any")],
      ["fr", word("lang_fr")],
      ["en", word("lang_en")],
    ];
    const language = make(
      "label",
      {},
      make("span", {}, word("spoken")),
      make(
        "select",
        { name: "language" },
        languages.map(([id, text]) => make("option", { value: id }, text)),
      ),
    );
    const submit = (event) => {
      event.preventDefault();
      const form = new FormData(event.target);
      tried(() => search(form));
    };
    const fields = [
      input("place", { label: "place", size: "10" }),
      input("age", { label: "age", type: "number", min: "0", max: "120" }),
      language,
    ];
    return make(
      "form",
      { class: "slot-search", onsubmit: submit },
      fields,
      make("button", { type: "submit", class: "small" }, word("search")),
    );
  }

  const act = (name, slot, onclick) =>
    make(
      "button",
      {
        type: "button",
        class: "small",
        onclick,
        "data-focus": `slot-${slot.id}`,
        "aria-label": [word(name), slot.starts && when(slot.starts), slot.doctor.name].filter(Boolean).join(" "),
      },
      word(name),
    );

  /** The call's bookings, after a reload or in another window. */
  async function recall(call) {
    const booked = (await get(`/v1/roster/bookings?call=${encodeURIComponent(call)}`)).filter((booking) => !booking.released);
    state.bookings = booked.map((booking) => ({ booking, slot: booking.slot ?? gone(booking.slot_id) }));
    done();
  }

  return { render, recall };
}

/** A slot that the roster has let go of. */
const gone = (id) => ({ id, starts: null, doctor: { name: word("slot_gone"), site: null, languages: [], specialties: [] } });

function row(slot, kind, button) {
  const { name, site, languages, specialties } = slot.doctor;
  const fields = kind === "booked" ? specialties.map((id) => state.specialties[id]?.[reader.lang] ?? id) : [];
  const who = [...fields, site, languages.join(" ").toUpperCase()].filter(Boolean).join(" · ");
  return make(
    "li",
    { class: kind },
    slot.starts ? make("time", { datetime: slot.starts }, when(slot.starts)) : make("span", {}),
    make("p", {}, make("b", {}, name), make("span", { class: "hint" }, who)),
    kind === "booked" ? make("span", { class: "chip good" }, word("booked")) : null,
    button || null,
  );
}
