"""A site's own protocols: YAML in the form of ``llmft/knowledge/protocols``, with every fault in words.

A file is read whole or not at all: each fault names file, line and field, so that all can be mended at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llmft.dialogue import Fault, field_path
from llmft.knowledge import Bilingual, Complaint, Protocol, Wordings
from llmft.text_files.whole_file import read_whole
from llmft.vocabulary import UNDECIDED, specialties

MAX_CHARS = 2_000_000
Place = tuple[int | str, ...]
# What PyYAML raises while it makes values of nodes: not only its own errors, but those of the types that it makes.
_CONSTRUCTION = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def read_protocol_files(paths: Iterable[Path]) -> tuple[list[Protocol], list[Fault]]:
    """The protocols of all good files, and every fault; a complaint's id may stand in one file only."""
    protocols: list[Protocol] = []
    faults: list[Fault] = []
    homes: dict[str, Path] = {}
    for path in paths:
        found = read_protocol_file(path)
        if isinstance(found, tuple):
            faults += found
            continue
        twice = [complaint.id for complaint in found.complaints if complaint.id in homes]
        for name in twice:
            faults.append(Fault(str(path), 1, "complaints", f"{name!r} is a complaint of {homes[name]} too; rename one"))
        if not twice:
            homes.update(dict.fromkeys((complaint.id for complaint in found.complaints), path))
            protocols.append(found)
    return protocols, faults


def read_protocol_file(path: Path) -> Protocol | tuple[Fault, ...]:
    """One protocol, or everything that is wrong with it."""
    file, text = str(path), read_whole(path, MAX_CHARS)
    if isinstance(text, Fault):
        return (text,)
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return (Fault(file, 1, "", "the file is empty"),)
        if faults := tuple(Fault(file, line, "", reason) for line, reason in _ambiguities(node)):
            return faults
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return (Fault(file, mark.line + 1 if mark else 1, "", f"not YAML: {error.problem or error.context}"),)
    except _CONSTRUCTION as error:
        return (Fault(file, 1, "", f"not YAML that can be read ({type(error).__name__})"),)
    finally:
        loader.dispose()
    return _checked(file, node, value)


def _checked(file: str, node: yaml.Node, value: Any) -> Protocol | tuple[Fault, ...]:
    try:
        protocol = Protocol.model_validate(value)
        wrong = list(_broken_rules(protocol))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        places = [tuple(one["loc"]) for one in found]
        whole = [one["type"] != "too_short" or not _holds_another(tuple(one["loc"]), places) for one in found]
        wrong = [(p, one["msg"].removeprefix("Value error, ")) for p, one, w in zip(places, found, whole, strict=True) if w]
        return tuple(Fault(file, _line(node, place), field_path(place), reason) for place, reason in wrong)
    return tuple(Fault(file, _line(node, place), field_path(place), reason) for place, reason in wrong) or protocol


def _holds_another(place: Place, places: list[Place]) -> bool:
    """Whether a list is only too short because of a fault inside it."""
    return any(place == other[: len(place)] != other for other in places)


def _broken_rules(protocol: Protocol) -> Iterator[tuple[Place, str]]:
    """What the types cannot say."""
    if protocol.specialty not in specialties() or protocol.specialty == UNDECIDED:
        yield ("specialty",), f"{protocol.specialty!r} is no specialty of knowledge/specialties.yaml"
    names: set[str] = set()
    slots: set[str] = set()
    for number, complaint in enumerate(protocol.complaints):
        place: Place = ("complaints", number)
        if complaint.id in names:
            yield (*place, "id"), f"{complaint.id!r} is an earlier complaint's id too"
        names.add(complaint.id)
        yield from _broken_complaint(place, complaint)
        for index, evidence in enumerate(complaint.evidence):
            here: Place = (*place, "evidence", index)
            if evidence.slot in slots:
                yield (*here, "slot"), f"{evidence.slot!r} is an earlier slot too"
            slots.add(evidence.slot)
            if evidence.urgency is not None and evidence.urgency > complaint.urgency:
                yield (*here, "urgency"), "a fact that is present cannot make the call less urgent than its complaint"
            for kind in ("ask", "present", "absent"):
                yield from _shared_wordings((*here, kind), getattr(evidence, kind))


def _broken_complaint(place: Place, complaint: Complaint) -> Iterator[tuple[Place, str]]:
    low, high = complaint.patient.age
    if not 0 <= low <= high <= 130:
        yield (*place, "patient", "age"), "the ages are not two years from 0 to 130, the lower one first"
    for lang, wordings in (("fr", complaint.says_relative.fr), ("en", complaint.says_relative.en)):
        if any("{who}" not in text for text in _all(wordings)):
            yield (*place, "says_relative", lang), "each wording must hold {who}, where the relative is named"
    for lang, wordings in (("fr", complaint.says.fr), ("en", complaint.says.en)):
        if any("{" in text for text in _all(wordings)):
            yield (*place, "says", lang), "a wording in the first person has no {…} to be filled"
    for kind in ("says", "says_relative"):
        yield from _shared_wordings((*place, kind), getattr(complaint, kind))


def _shared_wordings(place: Place, bilingual: Bilingual) -> Iterator[tuple[Place, str]]:
    """Train, validation and test must be told in different words, or a test proves nothing."""
    for lang, wordings in (("fr", bilingual.fr), ("en", bilingual.en)):
        texts = [text.strip().casefold() for text in _all(wordings)]
        if len(set(texts)) < len(texts):
            yield (*place, lang), "a wording stands twice; train, validation and test share none"


def _all(wordings: Wordings) -> tuple[str, ...]:
    return wordings.train + wordings.validation + wordings.test


def _ambiguities(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Keys that stand twice, and aliases: small files that unfold into huge ones."""
    seen: set[int] = set()
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            yield node.start_mark.line + 1, "aliases (&name, *name) are not taken; write the text out"
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if str(key.value) in keys:
                    yield key.start_mark.line + 1, f"the key {str(key.value)[:40]!r} stands twice in one place"
                keys.add(str(key.value))
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def _line(node: yaml.Node, place: Place) -> int:
    """The line of the deepest part of ``place`` that the file holds."""
    line = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == part]
            if not pairs:
                return int(line)
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return int(line)
