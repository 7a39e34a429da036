// The operator's page: brings the call's parts together.

import { endDialog, importDialog, keysDialog, leaveDialog, signInDialog } from "./call/dialogs.js";
import { makeComposer, showQuestions } from "./call/composer.js";
import { listen } from "./call/events.js";
import { answerTo } from "./call/keys.js";
import { makeOutbox } from "./call/outbox.js";
import { openBox } from "./call/seal.js";
import { showCard, showLevel, showState } from "./call/card.js";
import { makeSlots } from "./call/slots.js";
import { bannerNow, forgetCall, idle, isOpen, state, takeCall, takeSaid, takeTriage } from "./call/state.js";
import { showBanner, showEnded, showLink, showOpenCalls, showTop } from "./call/surroundings.js";
import { pointAt, showTranscript } from "./call/transcript.js";
import { makeVerdict } from "./call/verdict.js";
import { showChoices, showModel } from "./chrome.js";
import { byId, make } from "./page.js";
import { callPath, closedLists, get, openSession, post } from "./service.js";
import { reader, word, writeWords } from "./words.js";

const LAST_TRY = 2000; // milliseconds for turns that wait when somebody signs out

let box = null;
let feed = null;
let drawing = 0;
let wasLost = false;
let events = Promise.resolve();

const outbox = makeOutbox({ accepted, refused, link, signedOut, changed: draw }, (items) => box?.put("llmft.waiting", items));
const composer = makeComposer(add, () => box?.put("llmft.draft", state.call ? { call: state.call.id, ...state.draft } : null));
const verdict = makeVerdict(byId("verdict"), say, draw);
const slots = makeSlots(byId("slots"), say, draw);

/** Draw everything that has changed, once before the next frame. */
function draw() {
  drawing ||= setTimeout(() => {
    drawing = 0;
    drawNow();
  });
}

function drawNow() {
  const { call } = state;
  const waiting = outbox.waiting();
  document.body.classList.toggle("no-call", !call);
  byId("start").hidden = Boolean(call);
  byId("conversation").hidden = !call;
  byId("side").hidden = !call;
  showTop(call);
  showLink(byId("link"), state.lost, waiting.length);
  showBanner(byId("banner-place"), bannerNow(), isOpen(), () => end("escalated"));
  showLevel(byId("level"), call);
  if (!call) return;
  showTranscript(byId("turns"), waiting, state.lost);
  showQuestions(byId("suggestions"), composer.insert);
  composer.render();
  showCard(byId("card"), (turn) => pointAt(byId("turns"), turn), composer.insert);
  showState(byId("triage-state"), byId("triage-now"));
  slots.render();
  verdict.render();
  showEnded(byId("heard"), call);
  byId("as-stored").setAttribute("aria-pressed", String(state.asStored));
}

/** Tell something in a line that goes away, or stays when it is a fault. */
function say(text, isWrong = false) {
  const close = make(
    "button",
    { type: "button", class: "quiet small", "aria-label": word("close"), onclick: () => line.remove() },
    "✕",
  );
  const line = make("p", { class: isWrong ? "wrong" : "done" }, text, close);
  byId("notices").replaceChildren(line);
  if (!isWrong) setTimeout(() => line.remove(), 3000);
}

function link(isLost) {
  wasLost ||= isLost;
  if (state.lost !== isLost) draw();
  state.lost = isLost;
}

function add(speaker, text) {
  outbox.add(state.call.id, speaker, text);
}

function accepted(item, said) {
  link(false);
  if (item.call === state.call?.id) takeSaid(said, item.text);
}

function refused(item, error) {
  say(word("refused", { why: error.message }), true);
  if (item.call === state.call?.id) composer.set(item.speaker, [item.text, state.draft.text].filter(Boolean).join("\n"));
}

function signedOut() {
  if (byId("dialog").open) return;
  signInDialog(async (session) => {
    await begin(session);
    outbox.hurry();
    feed?.again();
  });
}

/** What the service tells about the call, in its order, and after the answers to what this page has sent. */
function told(id, name, data) {
  events = events.then(() => outbox.settled()).then(() => happened(id, name, data));
}

async function happened(id, name, data) {
  if (state.call?.id !== id) return;
  if (name === "state") takeCall(data);
  if (name === "turn") takeSaid(data);
  if (name === "triage") takeTriage(data);
  if (name === "closed") takeCall(await get(callPath(id)));
  if (name === "queue") state.live = { ...idle(), position: data.position };
  if (name === "sentence") state.live.sentence += data.text;
  if (name === "error") state.live = { ...idle(), error: data.error };
  draw();
  if (name === "state" && wasLost) catchUp();
}

/** The service makes no triage of turns that came while nobody listened. */
function catchUp() {
  wasLost = false;
  const { triage, triage_is_old: isOld, turns } = state.call;
  if ((isOld || !triage) && turns.some((turn) => turn.speaker === "patient")) triageNow();
}

function enter(call) {
  takeCall(call);
  slots.recall(call.id).catch(() => null);
  history.replaceState(null, "", `#${call.id}`);
  feed?.close();
  if (call.status === "open") feed = listen(call.id, (name, data) => told(call.id, name, data), link);
  draw();
}

async function start(lang) {
  await tried(async () => {
    enter(await post("/v1/calls", { lang }));
    composer.set("patient", "");
    drawNow();
    composer.focus();
  });
}

/** Leave the call for the page where one begins; it stays open and can be gone back to. */
async function leave() {
  feed?.close();
  forgetCall();
  history.replaceState(null, "", location.pathname);
  draw();
  byId(reader.lang === "fr" ? "start-fr" : "start-en").focus();
  await showOpenCalls(byId("open-calls"), (id) => tried(async () => enter(await get(callPath(id)))));
  byId(reader.lang === "fr" ? "start-fr" : "start-en").focus();
}

async function tried(act) {
  try {
    return await act();
  } catch (error) {
    if (error.status === 401) signedOut();
    else say(error.status ? word("wrong", { why: error.message }) : word("no_answer"), true);
    return null;
  }
}

function end(chosen = "done") {
  if (!isOpen()) return;
  endDialog(chosen, async (status) => {
    const waiting = outbox.waiting().filter((item) => item.call === state.call.id).length;
    if (waiting) return word("end_waits", { n: waiting });
    if (status === "escalated") await verdict.escalated();
    const ended = await tried(() => post(callPath(state.call.id, "/close"), { status }));
    if (ended) takeCall(ended);
    feed?.close();
    draw();
    return null;
  });
}

function bringIn() {
  if (!isOpen()) return;
  importDialog(async (turns) => {
    const done = await tried(() => post(callPath(state.call.id, "/transcript"), { turns }));
    if (!done) return word("no_answer");
    takeCall(done.call);
    const first = done.call.turns.length - turns.length;
    turns.forEach(({ text }, place) => state.typed.set(first + place, { text, masks: done.masks[place] }));
    draw();
    return null;
  });
}

const triageNow = () =>
  isOpen() &&
  tried(async () => {
    state.live = { ...idle(), position: 0 };
    draw();
    await outbox.settled();
    takeTriage(await post(callPath(state.call.id, "/triage")));
    draw();
  }).finally(() => {
    state.live = idle();
    draw();
  });

async function begin(session) {
  state.session = session;
  box = await openBox(session.seal ?? session.csrf);
  byId("to-supervisor").hidden = session.role !== "supervisor";
  showModel(byId("model"), session);
  showChoices(byId("choices"), session, () => (showModel(byId("model"), session), draw()), leaving);
  closedLists().then(
    ({ specialties }) => ((state.specialties = specialties), draw()),
    () => null, // a booking then shows the specialty's id
  );
}

/** What waits can only be sent, or lost: it is sealed for this session, which ends. */
async function leaving(go) {
  outbox.hurry();
  await Promise.race([outbox.settled(), new Promise((done) => setTimeout(done, LAST_TRY))]);
  const waiting = outbox.waiting().length;
  if (waiting) leaveDialog(waiting, go);
  else await go();
}

async function resume() {
  const id = location.hash.slice(1);
  if (!id) return leave();
  const call = await get(callPath(id)).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
  if (!call) {
    say(word("unknown_call"), true);
    return leave();
  }
  const draft = await box?.take("llmft.draft");
  enter(call);
  outbox.restore((await box?.take("llmft.waiting")) ?? []);
  const last = call.turns.at(-1)?.speaker;
  if (draft?.call === id) composer.set(draft.speaker, draft.text);
  else composer.set(last === "patient" ? "operator" : "patient", "");
  drawNow();
  composer.focus();
  return null;
}

writeWords();
byId("start-fr").addEventListener("click", () => start("fr"));
byId("start-en").addEventListener("click", () => start("en"));
byId("new-call").addEventListener("click", leave);
byId("import").addEventListener("click", bringIn);
byId("end-call").addEventListener("click", () => end());
byId("help").addEventListener("click", keysDialog);
byId("triage-now").addEventListener("click", triageNow);
byId("as-stored").addEventListener("click", () => {
  state.asStored = !state.asStored;
  draw();
});
addEventListener("online", () => (outbox.hurry(), feed?.again()));
addEventListener("offline", () => link(true));
addEventListener("beforeunload", (event) => {
  if (outbox.waiting().length && !box) event.preventDefault(); // only then would words be lost
});
answerTo({
  n: leave,
  i: bringIn,
  l: () => end(),
  h: keysDialog,
  t: triageNow,
  s: composer.swap,
  c: composer.focus,
  a: verdict.accept,
  m: verdict.edit,
  r: verdict.reject,
  p: () => isOpen() && state.call.triage?.sentence && composer.insert(state.call.triage.sentence),
  question: (place) => isOpen() && state.call.questions[place] && composer.insert(state.call.questions[place].text),
});
tried(async () => {
  await begin(await openSession());
  await resume();
});
