// Elements made from texts. Nothing here can make markup of a text, and the page's policy would refuse it.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `facts` are attributes, `on…` listeners; children are elements or texts, null is left out. */
export function make(tag, facts = {}, ...children) {
  return filled(document.createElement(tag), facts, children);
}

/** The same for drawings. */
export function draw(tag, facts = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), facts, children);
}

function filled(element, facts, children) {
  for (const [name, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

const shown = new WeakMap();

/**
 * Fill `place` with what `build` returns when `facts` differ from those it shows. What has the focus keeps it,
 * if what replaces it has the same `data-focus`.
 */
export function show(place, facts, build) {
  const signature = JSON.stringify(facts);
  if (shown.get(place) === signature) return;
  shown.set(place, signature);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  place.replaceChildren(...[build()].flat(2).filter(Boolean));
  if (focused) place.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

/** Bring the children of `list` to `items`, by key: an element stays as it is while its facts stay. */
export function showList(list, items, build) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const signature = JSON.stringify(item.facts);
    let child = known.get(item.key);
    known.delete(item.key);
    if (!child || shown.get(child) !== signature) {
      const fresh = build(item);
      fresh.dataset.key = item.key;
      shown.set(fresh, signature);
      child?.replaceWith(fresh);
      child = fresh;
    }
    if (list.children[place] !== child) list.insertBefore(child, list.children[place] ?? null);
  });
  known.forEach((child) => child.remove());
}

/** A text that no other of this page has; also where the browser offers no randomUUID, as outside TLS. */
export function unique() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A key as it is printed on it. */
export const key = (text) => make("kbd", {}, text);

/** Open the page's one dialog with a form; `submit` answers with a text of complaint to keep it open. */
export function openDialog(title, close, content, submit) {
  const dialog = byId("dialog");
  const complaint = make("p", { class: "complaint", role: "alert" });
  const form = make("form", { method: "dialog" }, ...content, complaint);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = await submit(new FormData(form), event.submitter);
    if (wrong) complaint.textContent = wrong;
    else dialog.close();
  });
  const closer = make(
    "button",
    { type: "button", class: "quiet small", "aria-label": close, onclick: () => dialog.close() },
    "✕",
  );
  const heading = make("h2", { id: "dialog-title" }, title);
  dialog.setAttribute("aria-labelledby", "dialog-title");
  dialog.replaceChildren(make("div", { class: "pane-head" }, heading, closer), form);
  dialog.showModal();
  dialog.querySelector("[autofocus], textarea, input, select")?.focus();
}
