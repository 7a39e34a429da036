// Runs before the page is painted: the chosen theme, so that a dark room is not lit up by a white flash.
"use strict";
{
  const chosen = localStorage.getItem("llmft.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
