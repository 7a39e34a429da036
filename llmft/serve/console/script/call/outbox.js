// Turns on their way to the service: one at a time, in order, each with a key of its own, so that a turn that is sent
// again after a lost connection stands once.

import { unique } from "../page.js";
import { Refused, callPath, post } from "../service.js";

const PAUSES = [0.5, 1, 2, 4, 8]; // seconds between attempts

/**
 * `told` has: accepted(item, said), refused(item, error), link(isLost), signedOut(), changed(). `keep` stores the waiting turns.
 */
export function makeOutbox(told, keep) {
  const items = []; // {key, call, speaker, text}
  let running = null;
  let wake = () => {};

  function add(call, speaker, text) {
    items.push({ key: unique(), call, speaker, text });
    changed();
    start();
  }

  function restore(waiting) {
    items.push(...waiting.filter((item) => !items.some((known) => known.key === item.key)));
    changed();
    start();
  }

  function start() {
    if (running) wake();
    else running = run().finally(() => (running = null));
  }

  async function run() {
    let failures = 0;
    while (items.length) {
      const item = items[0];
      const { key, speaker, text } = item;
      try {
        const said = await post(callPath(item.call, "/turns"), { speaker, text, key });
        failures = 0;
        items.shift();
        told.accepted(item, said);
      } catch (error) {
        if (error.temporary || error.status === 401) {
          if (error.status === 401) told.signedOut();
          else told.link(!(error instanceof Refused));
          await pause(Math.max(error.wait, PAUSES[Math.min(failures++, PAUSES.length - 1)]));
          continue;
        }
        items.shift();
        told.refused(item, error);
      }
      changed();
    }
  }

  const pause = (seconds) =>
    new Promise((done) => {
      wake = done;
      setTimeout(done, seconds * 1000);
    });

  function changed() {
    keep(items);
    told.changed();
  }

  return { add, restore, hurry: start, waiting: () => [...items], settled: () => running ?? Promise.resolve() };
}
