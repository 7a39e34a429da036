"""JSON as the standard has it: no repeated keys, NaN, infinities or lone surrogates, which Python would let pass."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_SPELLED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # a hint only; pairs are fine


class JsonRuleError(ValueError):
    """Text that is not the JSON we take; the message quotes nothing of it."""


def parse_json(text: str) -> Any:
    """The value of ``text``; raises :class:`JsonRuleError`."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        text.encode()
        if _SPELLED_SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except JsonRuleError:
        raise
    except UnicodeEncodeError:
        raise JsonRuleError("a lone surrogate stands in the text") from None
    except json.JSONDecodeError as error:
        raise JsonRuleError(
            "not whole JSON: it is cut off" if _is_cut(text, error) else f"not JSON at column {error.pos + 1}"
        ) from None
    except (ValueError, RecursionError):
        raise JsonRuleError("not JSON: a number too long or lists too deep") from None
    return value


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether the fault is the text's end: nothing more, an open quote, or half of an escape."""
    left = len(text.rstrip()) - error.pos
    return left <= 0 or error.msg.startswith("Unterminated") or error.msg.startswith("Invalid \\u") and left < len("u0000")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise JsonRuleError("a key appears twice in one object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise JsonRuleError(f"{name} is not a number of JSON")
