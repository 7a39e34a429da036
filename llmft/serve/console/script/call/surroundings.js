// What stands around a call: its name and time, the connection, the emergency banner, the calls that are still open.

import { byId, make, show } from "../page.js";
import { get } from "../service.js";
import { reader, when, word } from "../words.js";
import { isOpen, state } from "./state.js";

let clock = null;

/** The call's name and how long it has lasted. */
export function showTop(call) {
  clearInterval(clock);
  const place = byId("callname");
  const tell = () => {
    const seconds = Math.max(
      0,
      Math.floor(((isOpen() ? Date.now() : Date.parse(call.updated)) - Date.parse(call.started)) / 1000),
    );
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    show(place, [call.id, call.lang, time], () => [
      make("span", { class: "chip" }, call.lang.toUpperCase()),
      make("span", { class: "clock" }, time),
    ]);
  };
  if (call) {
    tell();
    if (isOpen()) clock = setInterval(tell, 1000);
  } else show(place, [], () => []);
  byId("new-call").hidden = !call;
  byId("import").hidden = !isOpen();
  byId("end-call").hidden = !isOpen();
}

/** Whether the service can be reached, and what waits for it. */
export function showLink(place, lost, waiting) {
  place.className = `link ${lost ? "off" : "on"}`;
  show(place, [lost, reader.lang], () => [
    make("span", { class: "dot", "aria-hidden": "true" }),
    word(lost ? "offline" : "online"),
  ]);
  const banner = byId("lost");
  if (!lost) {
    banner?.remove();
    return;
  }
  const text = [word("lost"), waiting ? word("lost_n", { n: waiting }) : ""].filter(Boolean).join(" ");
  if (banner) {
    if (banner.textContent !== text) banner.textContent = text;
  } else byId("banner-place").after(make("p", { id: "lost", class: "lost", role: "alert" }, text));
}

/** The large banner of an emergency; it is announced when it comes and when it says something else. */
export function showBanner(place, banner, open, pass) {
  show(
    place,
    [banner, open, reader.lang],
    () =>
      banner &&
      make(
        "div",
        { class: "emergency" },
        make("p", { class: "number", "aria-hidden": "true" }, banner.number),
        make("p", { class: "emergency-text" }, make("strong", {}, word("urgency_U1")), " ", banner.text),
        open
          ? make("button", { type: "button", class: "on-red large", "data-focus": "pass", onclick: pass }, word("banner_pass"))
          : null,
      ),
  );
}

/** How a call ended, or that the patient seems to speak another language. */
export function showEnded(place, call) {
  const other = call.status === "open" && state.heard && state.heard !== call.lang;
  const text =
    call.status !== "open" ? word(`ended_${call.status}`) : other ? word("heard", { lang: word(`lang_${state.heard}`) }) : "";
  show(place, [text], () => text);
  place.classList.toggle("told", Boolean(text));
}

/** The calls that can be gone on with. */
export async function showOpenCalls(place, go) {
  const { calls } = await get("/v1/calls?status=open").catch(() => ({ calls: [] }));
  show(
    place,
    [calls, reader.lang],
    () =>
      calls.length && [
        make("h3", { id: "open-title" }, word("open_calls")),
        make(
          "ul",
          { "aria-labelledby": "open-title" },
          calls
            .slice(0, 8)
            .map((call) =>
              make(
                "li",
                {},
                make(
                  "button",
                  { type: "button", onclick: () => go(call.id) },
                  make("span", { class: "chip" }, call.lang.toUpperCase()),
                  " ",
                  word("call_of", { time: when(call.started) }),
                ),
              ),
            ),
        ),
      ],
  );
}
