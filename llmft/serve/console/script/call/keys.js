// The keys: Alt and a letter or a digit. Letters are those printed on the keys, digits those of the upper row on any layout.

/** `acts`: a letter ─▶ what it does; `question(place)` for Alt+1 to Alt+3. */
export function answerTo(acts) {
  addEventListener("keydown", (event) => {
    if (!event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const digit = /^(?:Digit|Numpad)([123])$/u.exec(event.code);
    const act = digit ? () => acts.question(Number(digit[1]) - 1) : acts[letterOf(event)];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

// Option on a Mac writes another sign, and then the key's place must do.
const letterOf = (event) =>
  /^[a-z]$/iu.test(event.key) ? event.key.toLowerCase() : event.code.replace(/^Key/u, "").toLowerCase();
