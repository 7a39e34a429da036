// A pasted or imported transcript, read into turns. A file is read here, in the page; only the turns are sent.

const PATIENT = /^(?:patiente?|appelante?|caller|user|client|human|p)$/iu;
const OPERATOR = /^(?:op[ée]rat(?:eur|rice|or)|r[ée]gulat(?:eur|rice)|agent|assistant|arm|nurse|infirmi[èe]re?|gpt|o)$/iu;
const NAMED =
  /^\s*(?:\[?\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?\]?\s*)?(?:<v\s+([^>]{1,30})>|\*{0,2}\[?([\p{L}\p{N}_ ]{1,30}?)\]?\*{0,2}\s*[:：])\s*/u;
const CUE = /^\s*(?:\d+\s*$|WEBVTT|NOTE\b|(?:\d{1,2}:)?\d{2}:\d{2}[.,]\d{3}\s*-->)/u; // of SRT and VTT: what is not said
const MARKUP = /<\/?(?:b|i|u|v|c|lang|ruby|rt|font)(?:[ .][^>\n]{0,80})?>/giu; // of SRT and VTT, too

/** Turns `[{speaker, text}]` of a text in any of the forms that the page names; none when there are none. */
export function readTranscript(text) {
  const turns = fromJson(text) ?? fromLines(text);
  return joined(turns.map(({ speaker, text: words }) => ({ speaker, text: words.trim() })).filter((turn) => turn.text));
}

/** The same with the two voices exchanged. */
export const swapped = (turns) =>
  turns.map(({ speaker, text }) => ({ speaker: speaker === "patient" ? "operator" : "patient", text }));

function fromJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const rows = Array.isArray(value) ? value : (value?.turns ?? value?.messages ?? value?.conversations ?? value?.segments);
  if (!Array.isArray(rows)) return null;
  const named = rows
    .filter((row) => typeof row === "object" && row !== null)
    .map((row) => ({
      name: String(row.speaker ?? row.role ?? row.from ?? ""),
      text: String(row.text ?? row.content ?? row.value ?? ""),
    }));
  return sides(named.filter(({ name }) => name !== "system"));
}

function fromLines(text) {
  const lines = text
    .replaceAll("\r", "")
    .split("\n")
    .filter((line) => line.trim() && !CUE.test(line))
    .map(nameAndWords);
  const named = [];
  for (const { name, line, words } of lines) {
    const isName = name && (PATIENT.test(name) || OPERATOR.test(name) || lines.filter((other) => other.name === name).length > 1);
    const spoken = (isName ? words : line).replace(MARKUP, "");
    if (!isName && named.at(-1)?.name) named.at(-1).text += ` ${spoken.trim()}`;
    else named.push({ name: isName ? name : "", text: spoken });
  }
  return sides(named);
}

function nameAndWords(line) {
  const found = NAMED.exec(line);
  return found
    ? { name: (found[1] ?? found[2]).trim(), line, words: line.slice(found[0].length) }
    : { name: "", line, words: line };
}

/** Who is the patient: by the names; otherwise the operator is the voice that asks more, which the reader can exchange. */
function sides(named) {
  const voices = named.map(({ name, text }, place) => ({ voice: name || `line ${place % 2}`, text }));
  const side = new Map();
  for (const { voice } of voices) {
    if (PATIENT.test(voice)) side.set(voice, "patient");
    if (OPERATOR.test(voice)) side.set(voice, "operator");
  }
  const asked = (voice) => voices.filter((one) => one.voice === voice && one.text.includes("?")).length;
  const strange = [...new Set(voices.map(({ voice }) => voice))]
    .filter((voice) => !side.has(voice))
    .sort((a, b) => asked(a) - asked(b));
  const taken = new Set(side.values());
  const left = ["patient", "operator"].filter((one) => !taken.has(one));
  strange.forEach((voice, place) => side.set(voice, left[Math.min(place, left.length - 1)] ?? "operator"));
  return voices.map(({ voice, text }) => ({ speaker: side.get(voice), text }));
}

function joined(turns) {
  const out = [];
  for (const turn of turns) {
    if (out.at(-1)?.speaker === turn.speaker) out.at(-1).text += ` ${turn.text}`;
    else out.push({ ...turn });
  }
  return out;
}
