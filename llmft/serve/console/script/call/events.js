// What happens in a call, as the service tells it while the page is open.

import { callPath } from "../service.js";

const NAMES = ["state", "turn", "queue", "sentence", "triage", "closed", "error"];
const AGAIN = 1500; // milliseconds until a closed stream is opened again

/** Listen to a call; `tell(name, data)` for each event, `link(isLost)` when the connection goes or comes. Answers with its end. */
export function listen(id, tell, link) {
  let source = null;
  let timer = null;

  function open() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource(callPath(id, "/events"));
    source.addEventListener("open", () => link(false));
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        if (event.data !== undefined) tell(name, JSON.parse(event.data));
        else broken(); // the browser's own "error"
      });
    }
  }

  function broken() {
    link(true);
    if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN);
  }

  open();
  return { close: () => (clearTimeout(timer), source.close()), again: open };
}
