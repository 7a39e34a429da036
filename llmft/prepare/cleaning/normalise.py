"""One spelling for one text: Unicode NFC, plain quotes and spaces, nothing hidden, no markup.

NFC and not NFKC, so that "½", "°" and "m²" stay what the caller's doctor reads. The triage block that
ends an operator's last turn keeps its bytes, apart from hidden characters: its quotes are JSON.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable

FENCE = "```json"
_MAX_PASSES = 8  # markup nested deeper than this is hostile; nothing of it is kept

_UNUSUAL = re.compile(r"[^\n !-%'-;=-~À-ÖØ-öø-ÿœŒŸ°½¼¾²³µ×÷€…]")  # "&" and "<" among them: they may be markup

_HIDDEN = [0xAD, 0x34F, 0x61C, 0x180E, 0xFEFF, 0xFFFE, 0xFFFF]  # soft hyphen, joiners, marks, no characters
_HIDDEN += [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]  # zero width, bidirectional overrides
_HIDDEN += [*range(0xFDD0, 0xFDF0), *range(0xFE00, 0xFE10), *range(0xFFF9, 0xFFFC)]
_TAGS = [chr(code) for code in range(0xE0000, 0xE0080)]
_HIDDEN += [code for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x9, 0xA, 0xB, 0xC, 0xD)]

_IN_BLOCK = {**dict.fromkeys([*map(chr, _HIDDEN), *_TAGS], ""), "\v": " ", "\f": " ", "\r": "\n"}
_IN_WORDS = {
    **_IN_BLOCK,
    **dict.fromkeys("\t\u00a0\u1680\u202f\u205f\u3000", " "),
    **dict.fromkeys(map(chr, range(0x2000, 0x200B)), " "),
    **dict.fromkeys("\u2028\u2029", "\n"),
    **dict.fromkeys("‘’‚‛ʼʹ´′", "'"),
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‐‑‒–−", "-"),
    **dict.fromkeys("—―", " - "),
    # Windows-1252 that was read as Latin-1 leaves its quotes and dashes among the C1 controls.
    **{"\x80": "€", "\x85": "…", "\x8c": "Œ", "\x91": "'", "\x92": "'", "\x93": '"', "\x94": '"', "\x96": "-"},
    **{"\x97": " - ", "\x9c": "œ"},
}
# Beyond U+FFFF a range is one test, single characters are one each: tags stand as a range, 20 times faster.
_BLOCK_CHARACTER, _WORD_CHARACTER = (
    re.compile(f"[{re.escape(''.join(c for c in table if c < _TAGS[0]))}{_TAGS[0]}-{_TAGS[-1]}]")
    for table in (_IN_BLOCK, _IN_WORDS)
)
_GUILLEMETS = re.compile(r"«\s*([^«»]*?)\s*»")
_ENTITY = re.compile(r"&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
# Only names of HTML: "<inaudible>" and "<PERSON>" are words of a transcript, "<38" is a number.
_INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|img|input|ins|kbd|label|mark|o:p|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var"
)
_BLOCKS = (
    "article|aside|blockquote|body|br|button|caption|center|col|dd|div|dl|dt|embed|footer|form|frame|h[1-6]|head|header|hr|html"
    "|iframe|li|link|main|math|meta|nav|object|ol|option|p|pre|section|select|source|svg|table|tbody|td|textarea|tfoot|th|thead"
    "|title|tr|ul|video"
)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCKS})(?:\s[^<>]*)?/?>|<!doctype[^<>]*>", re.IGNORECASE)
_UNSEEN = ("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>")  # what no reader of the page saw
_SPACES, _LINE_ENDS = re.compile(r" {2,}"), re.compile(r" ?\n[ \n]*")


def normalise(text: str) -> str:
    """``text`` in its one spelling; a second time changes nothing. Lone surrogates stay for the record's check."""
    if _is_clean(text):  # most turns: one look, no work
        return text
    head, block = _split_block(text)
    if not block:
        cleaned = _normalise_words(text)
        return normalise(cleaned) if _split_block(cleaned)[1] else cleaned  # plain quotes may have mended the block
    head = _normalise_words(head)
    block = unicodedata.normalize("NFC", _visible(block))
    return f"{head}\n{block}" if head else block


def words(texts: Iterable[str]) -> list[bytes]:
    """The words of a call without case, accents, punctuation and triage block: what two calls are compared by."""
    joined = " ".join([text.partition(FENCE)[0] if FENCE in text else text for text in texts])
    plain = unicodedata.normalize("NFKD", joined.replace("œ", "oe").replace("Œ", "Oe")).encode("ascii", "ignore")
    if 2 * len(plain) < len(joined):  # another script: its letters are the words
        return " ".join(re.findall(r"\w+", joined.lower())).encode("utf-8", "replace").split()
    return plain.translate(_LETTERS).split()


_LETTERS = bytes(ord(chr(c).lower()) if chr(c).isalnum() and c < 128 else 32 for c in range(256))


def _is_clean(text: str) -> bool:
    """Whether no pass could change ``text``; the common case, so it costs next to nothing."""
    if _UNUSUAL.search(text) or "  " in text or text[:1] in (" ", "\n") or text[-1:] in (" ", "\n"):
        return False
    return "\n" not in text or not ("\n\n" in text or "\n " in text or " \n" in text)


def _visible(block: str) -> str:
    return _BLOCK_CHARACTER.sub(lambda found: _IN_BLOCK[found.group()], block.replace("\r\n", "\n"))


def _split_block(text: str) -> tuple[str, str]:
    """What comes before the triage block that ends ``text``, and the block; an empty block when there is none."""
    head, fence, rest = text.rpartition(FENCE)
    body = rest.rstrip()
    if not fence or not body.endswith("```"):
        return text, ""
    try:
        is_block = isinstance(json.loads(_visible(body.removesuffix("```"))), dict)
    except (ValueError, RecursionError):
        return text, ""
    return (head, fence + body) if is_block else (text, "")


def _normalise_words(text: str) -> str:
    """Repeated until nothing changes: what one pass takes away may have hidden something else."""
    for _ in range(_MAX_PASSES):
        before, text = text, _one_pass(text)
        if text == before or _is_clean(text):
            return text
    return _one_pass(_one_pass(re.sub("[<>&]", " ", text)))


def _one_pass(text: str) -> str:
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(re.sub("^&(?:amp;)+", "&", found.group())), text)
    if "<" in text:
        text = _without_markup(text)
    if "«" in text:
        text = _GUILLEMETS.sub(r'"\1"', text)
    text = _WORD_CHARACTER.sub(lambda found: _IN_WORDS[found.group()], text.replace("\r\n", "\n"))
    text = unicodedata.normalize("NFC", text)
    if "  " in text:
        text = _SPACES.sub(" ", text)
    if "\n" in text:
        text = _LINE_ENDS.sub("\n", text)
    return text.strip(" \n")


def _without_markup(text: str) -> str:
    for start, end in _UNSEEN:
        if start in text.lower():
            text = _without_stretches(text, start, end)
    return _INLINE_TAG.sub("", _BLOCK_TAG.sub(" ", text))


def _without_stretches(text: str, start: str, end: str) -> str:
    """``text`` without what stands from each ``start`` to the next ``end``; in linear time, whatever is nested."""
    first, *pieces = re.split(re.escape(start), text, flags=re.IGNORECASE)
    kept = [first]
    for piece in pieces:
        closed = re.split(re.escape(end), piece, maxsplit=1, flags=re.IGNORECASE)
        kept.append(closed[1] if len(closed) == 2 else start + piece)
    return "".join(kept)
