// One turn has two texts: as it was typed, and as it is stored. Places in them are counted in characters (code points),
// as the service counts them; a JavaScript string counts otherwise, so texts are cut from lists of characters here.

/** The stored text that `masks` make of a typed one. */
export function masked(typed, masks) {
  const letters = Array.from(typed);
  let out = "";
  let place = 0;
  for (const mask of inOrder(masks)) {
    out += letters.slice(place, mask.start).join("") + mask.placeholder;
    place = mask.end;
  }
  return out + letters.slice(place).join("");
}

/** Where a stretch of the stored text lies in the typed one; what touches a mask takes in all of it. */
export function inTyped([start, end], masks) {
  let grown = 0; // the stored text's place minus the typed one's, so far
  let from = null;
  let to = null;
  for (const mask of inOrder(masks)) {
    const first = mask.start + grown;
    const last = first + Array.from(mask.placeholder).length;
    if (from === null && start < last) from = start < first ? start - grown : mask.start;
    if (to === null && end <= first) to = end - grown;
    else if (to === null && end <= last) to = mask.end;
    grown = last - mask.end;
  }
  return [from ?? start - grown, to ?? end - grown];
}

/**
 * A text cut into stretches, each with the marks that cover it: `[{text, end, marks: [mark, …]}]`.
 * `marks` have `start` and `end`; they may overlap.
 */
export function cut(text, marks) {
  const letters = Array.from(text);
  const inside = marks.filter(({ start, end }) => start >= 0 && end <= letters.length && start < end);
  const edges = [...new Set([0, letters.length, ...inside.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  return edges.slice(0, -1).map((start, place) => ({
    text: letters.slice(start, edges[place + 1]).join(""),
    end: edges[place + 1],
    marks: inside.filter((mark) => mark.start <= start && mark.end >= edges[place + 1]),
  }));
}

/** What to mark in the text that is shown of a turn: the flags' words, and the words that are stored as placeholders. */
export function marksOf(turn, known, flags, asStored) {
  const own = flags.filter((flag) => flag.turn === turn.i);
  if (!known || asStored) {
    const places = [...turn.text.matchAll(/\[[A-Z_0-9+]+\]/gu)].map((found) => ({
      kind: "mask",
      start: Array.from(turn.text.slice(0, found.index)).length,
      end: Array.from(turn.text.slice(0, found.index)).length + found[0].length,
    }));
    const spans = own.filter((flag) => flag.span).map((flag) => ({ kind: "flag", flag, start: flag.span[0], end: flag.span[1] }));
    return { text: turn.text, marks: [...spans, ...places] };
  }
  // A turn that was masked anew when a later one told a name: its places moved, its words did not.
  const moved = masked(known.text, known.masks) !== turn.text;
  const spans = own
    .filter((flag) => flag.span)
    .map((flag) => {
      const [start, end] = moved ? wordsIn(known.text, flag.quote) : inTyped(flag.span, known.masks);
      return { kind: "flag", flag, start, end };
    });
  return { text: known.text, marks: [...spans, ...known.masks.map((mask) => ({ kind: "mask", ...mask }))] };
}

function wordsIn(text, words) {
  const found = words ? text.indexOf(words) : -1;
  if (found < 0) return [-1, -1];
  const start = Array.from(text.slice(0, found)).length;
  return [start, start + Array.from(words).length];
}

const inOrder = (masks) => [...masks].sort((a, b) => a.start - b.start);
