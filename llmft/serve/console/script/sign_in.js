// The sign-in page: a key for a session.

import { showChoices } from "./chrome.js";
import { byId } from "./page.js";
import { signIn } from "./service.js";
import { word, writeWords } from "./words.js";

const PAGES = ["/", "/supervisor"];

writeWords();
showChoices(byId("choices"), null, () => {});
byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wanted = new URLSearchParams(location.search).get("to");
  try {
    await signIn(byId("key").value.trim());
    location.replace(PAGES.includes(wanted) ? wanted : "/");
  } catch (error) {
    byId("complaint").textContent = error.status ? error.message : word("no_answer");
    byId("key").select();
  }
});
