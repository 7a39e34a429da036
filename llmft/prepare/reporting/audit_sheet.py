"""The page of an audit: the sampled calls, boxes to tick, and a form that computes the bound and saves the result."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from llmft.dialogue import Dialogue
from llmft.page.document import both, document, note, number, safe, section
from llmft.vocabulary import placeholders

BOXES = (
    ("reviewed", "lu en entier", "read to the end"),
    ("leak", "une donnée personnelle est restée", "personal data was left"),
    ("wrong", "un mot a été remplacé à tort", "a word was replaced wrongly"),
)


def sheet(name: str, dialogues: Sequence[Dialogue], set_sha256: str, seed: int, population: int) -> str:
    """The whole page; ``population`` is how many calls the sample stands for."""
    task = section(
        "Ce qu'il faut faire",
        "What to do",
        note(
            f"Lisez ces {len(dialogues)} appels, tirés au hasard parmi {number(population)}, dans l'ordre. Les mots surlignés "
            "ont remplacé une donnée personnelle. Cochez ce que vous trouvez, puis signez en bas. Rien ne quitte cette page.",
            f"Read these {len(dialogues)} calls, drawn at random among {number(population)}, in order. Highlighted words stand "
            "for personal data. Tick what you find, then sign at the end. Nothing leaves this page.",
        ),
    )
    calls = "".join(_call(place, dialogue) for place, dialogue in enumerate(dialogues, start=1))
    body = task + section("Appels", "Calls", calls) + _form()
    facts = {"kind": "llmft-audit", "set_sha256": set_sha256, "seed": seed, "sampled": len(dialogues)}
    # json inside a script: "<" could end it
    script = f"const FACTS = {json.dumps(facts)};\n".replace("<", "\\u003c") + SCRIPT
    return document(f"Audit de dé-identification : {name}", f"De-identification audit: {name}", body, script=script)


def _call(place: int, dialogue: Dialogue) -> str:
    speakers = {"patient": both("patient", "patient"), "operator": both("opérateur", "operator")}
    turns = "".join(
        f'<p class="turn" lang="{dialogue.lang}"><b>{speakers[turn.speaker]}</b><bdi>{highlighted(turn.text)}</bdi></p>'
        for turn in dialogue.turns
    )
    boxes = "".join(
        f'<label><input type="checkbox" class="{name}"> {both(french, english)}</label>' for name, french, english in BOXES
    )
    return (
        f'<article class="call" data-id="{safe(dialogue.id)}"><h3>{place} · {safe(dialogue.id)}</h3>{turns}'
        f'<div class="boxes">{boxes}</div></article>'
    )


def highlighted(text: str) -> str:
    """A turn as HTML with its placeholders marked."""
    names = "|".join(re.escape(name) for name in sorted(placeholders(), key=len, reverse=True))
    pieces = re.split(rf"(\[(?:{names})(?:_\d+)?\])", text)
    return "".join(f"<mark>{safe(piece)}</mark>" if place % 2 else safe(piece) for place, piece in enumerate(pieces))


def _form() -> str:
    fields = (
        f'<form id="sign"><p id="tally" aria-live="polite"></p>'
        f"<label>{both('Votre nom et votre fonction', 'Your name and role')}"
        '<input type="text" id="signed_by" maxlength="200" autocomplete="off"></label>'
        f'<button type="button" id="save" disabled>{both("Signer et télécharger", "Sign and download")}</button></form>'
    )
    after = note(
        "Rendez ce fichier à llmft : il entre dans le rapport du jeu. La signature vaut pour ce jeu seulement.",
        "Give this file back to llmft: it goes into the set's report. The signature holds for this set alone.",
    )
    return section("Signature", "Sign-off", fields, after)


SCRIPT = """
// Share p at which `found` or fewer of `cases` has chance 5 % (Clopper-Pearson): none of n gives 1 - 0.05^(1/n).
function upperBound(found, cases) {
  if (found >= cases) return 1;
  function atMost(p) {
    let term = cases * Math.log1p(-p), sum = Math.exp(term);
    for (let k = 1; k <= found; k++) {
      term += Math.log((cases - k + 1) / k) + Math.log(p) - Math.log1p(-p);
      sum += Math.exp(term);
    }
    return sum;
  }
  let low = 0, high = 1;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (atMost(middle) > 0.05) low = middle; else high = middle;
  }
  return (low + high) / 2;
}
function outcome(calls) {  // only what was read counts
  const read = calls.filter(call => call.reviewed);
  const leaks = read.filter(call => call.leak).map(call => call.id);
  const wrong = read.filter(call => call.wrong).map(call => call.id);
  const leak_bound = read.length ? upperBound(leaks.length, read.length) : 1;
  return { reviewed: read.length, leaks, wrong, leak_bound };
}
function start() {
  const articles = [...document.querySelectorAll('article')];
  const name = document.getElementById('signed_by'), save = document.getElementById('save');
  const tally = document.getElementById('tally');
  const ticked = (article, box) => article.querySelector('.' + box).checked;
  const now = () => outcome(articles.map(article => ({ id: article.dataset.id, reviewed: ticked(article, 'reviewed'),
    leak: ticked(article, 'leak'), wrong: ticked(article, 'wrong') })));
  function say(language, text) {
    const span = document.createElement('span');
    span.className = span.lang = language; span.textContent = text; tally.append(span);
  }
  function show() {
    const found = now(), bound = (100 * found.leak_bound).toFixed(2);
    tally.textContent = '';
    say('fr', `${found.reviewed} appels lus sur ${FACTS.sampled}, ${found.leaks.length} avec une fuite, ` +
      `${found.wrong.length} avec un remplacement à tort. ` +
      `Au plus ${bound} % des appels du jeu contiennent une fuite (borne à 95 %).`);
    say('en', `${found.reviewed} of ${FACTS.sampled} calls read, ${found.leaks.length} with a leak, ` +
      `${found.wrong.length} with a wrong replacement. At most ${bound} % of the set's calls hold a leak (95 % bound).`);
    save.disabled = !(found.reviewed && name.value.trim());
  }
  document.addEventListener('change', event => {  // who ticks a finding has read the call
    const box = event.target, article = box.closest('article');
    if (article && box.checked && !box.classList.contains('reviewed')) article.querySelector('.reviewed').checked = true;
    if (article && !box.checked && box.classList.contains('reviewed'))
      for (const other of article.querySelectorAll('input')) other.checked = false;
    show();
  });
  name.addEventListener('input', show);
  document.getElementById('sign').addEventListener('submit', event => event.preventDefault());
  save.addEventListener('click', () => {
    const day = new Date(), two = value => String(value).padStart(2, '0');
    const signed_on = `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
    const result = { ...FACTS, ...now(), signed_by: name.value.trim(), signed_on };
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 2)], { type: 'application/json' }));
    link.download = 'audit-signed.json'; link.click(); URL.revokeObjectURL(link.href);
  });
  show();
}
if (typeof document !== 'undefined') start();
"""
