// Small charts, drawn as SVG; each says in words what it shows and has its numbers in a table beside it.

import { draw, make } from "../page.js";

/** Bars by day, one group a day: `rows` of `{name, values: [n, …]}`, `kinds` the values' names. */
export function barsByDay(label, rows, kinds) {
  const [width, height, left, bottom] = [900, 200, 40, 24];
  const most = niceMost(Math.max(1, ...rows.flatMap((row) => row.values)));
  const step = (width - left) / rows.length;
  const bar = Math.min(28, (step * 0.7) / kinds.length);
  const y = (value) => (height - bottom) * (1 - value / most) + 8;
  const lines = [0, most / 2, most].map((value) => [
    draw("line", { x1: left, x2: width, y1: y(value), y2: y(value), class: "grid" }),
    draw("text", { x: left - 8, y: y(value) + 4, class: "tick end" }, String(value)),
  ]);
  const groups = rows.map((row, place) => {
    const start = left + place * step + (step - bar * kinds.length) / 2;
    const bars = row.values.map((value, kind) =>
      draw(
        "rect",
        {
          x: start + kind * bar,
          y: y(value),
          width: Math.max(1, bar - 2),
          height: Math.max(0, y(0) - y(value)),
          rx: 2,
          class: `kind-${kind}`,
        },
        draw("title", {}, `${row.name} · ${kinds[kind]}: ${value}`),
      ),
    );
    const isNamed = rows.length <= 10 || place % Math.ceil(rows.length / 10) === 0;
    return [...bars, isNamed && draw("text", { x: left + (place + 0.5) * step, y: height, class: "tick middle" }, row.name)];
  });
  return make("figure", {}, picture(label, width, height + 8, [...lines, ...groups]), legend(kinds));
}

/** One line of parts of a whole: `parts` of `{name, value, class}`. */
export function wholeLine(label, parts) {
  const [width, height] = [400, 24];
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  let x = 0;
  const pieces = parts
    .filter((part) => part.value)
    .map((part) => {
      const size = (part.value / total) * width;
      const piece = draw(
        "rect",
        { x, y: 0, width: Math.max(1, size - 2), height, rx: 3, class: part.class },
        draw("title", {}, `${part.name}: ${part.value}`),
      );
      x += size;
      return piece;
    });
  return picture(label, width, height, pieces);
}

/** A drift index on its scale, with the two marks from which one looks and from which one acts. */
export function indexBar(label, value, level) {
  const [width, most] = [160, 0.4];
  const x = (number) => (Math.min(number, most) / most) * width;
  return picture(label, width, 16, [
    draw("rect", { x: 0, y: 5, width, height: 6, rx: 3, class: "track" }),
    draw("rect", { x: 0, y: 5, width: Math.max(2, x(value)), height: 6, rx: 3, class: `index ${level.replace(" ", "-")}` }),
    [0.1, 0.25].map((mark) => draw("line", { x1: x(mark), x2: x(mark), y1: 1, y2: 15, class: "mark" })),
  ]);
}

/** Two shares of one class, one above the other. */
export function pairBar(label, before, recent) {
  const width = 160;
  return picture(label, width, 16, [
    draw("rect", { x: 0, y: 1, width: Math.max(1, before * width), height: 6, rx: 2, class: "kind-1" }),
    draw("rect", { x: 0, y: 9, width: Math.max(1, recent * width), height: 6, rx: 2, class: "kind-0" }),
  ]);
}

export const legend = (kinds) =>
  make(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    kinds.map((kind, place) => make("li", {}, make("i", { class: `kind-${place}` }), kind)),
  );

const picture = (label, width, height, content) =>
  draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "chart" }, content);

function niceMost(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Math.max(
    2,
    [1, 2, 4, 6, 8, 10].map((times) => times * power).find((value) => value >= most),
  );
}
