"""Doctors from FHIR R4: a Bundle, a list or NDJSON of Practitioner, PractitionerRole, Schedule, Slot and Location.

A doctor is a PractitionerRole: a person at one place. A Schedule belongs to a role when it names the role, or
names its practitioner and, where that person has several roles, its Location. Specialties are matched by their
texts and displays, for a code alone says nothing without its terminology.
Source of the form: https://hl7.org/fhir/R4/ (PractitionerRole, Schedule, Slot).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from llmft.dialogue import Fault, fault_of
from llmft.doctors.roster_file import Doctor, Slot, find_language, find_mode, find_specialty
from llmft.strict_json import parse_json
from llmft.text_files.text_source import guess_encoding, text_lines
from llmft.text_files.whole_file import read_whole


class _Part(BaseModel):
    """A part of a resource; elements that we do not use are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Reference(_Part):
    reference: str = ""
    display: str | None = None


class _Coding(_Part):
    code: str | None = None
    display: str | None = None


class _Concept(_Part):
    text: str | None = None
    coding: tuple[_Coding, ...] = ()

    @property
    def names(self) -> list[str]:
        """What it is called, the plainest first."""
        told = [self.text, *(c.display for c in self.coding), *(c.code for c in self.coding)]
        return [name for name in told if name]


class _Name(_Part):
    text: str | None = None
    family: str | None = None
    given: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """As it is written."""
        return self.text or " ".join([*self.prefix, *self.given, self.family or ""]).strip()


class _Qualification(_Part):
    code: _Concept


class _Practitioner(_Part):
    name: tuple[_Name, ...] = ()
    communication: tuple[_Concept, ...] = ()
    qualification: tuple[_Qualification, ...] = ()


class _Role(_Part):
    active: bool = True
    practitioner: _Reference = _Reference()
    specialty: tuple[_Concept, ...] = ()
    location: tuple[_Reference, ...] = ()


class _Location(_Part):
    name: str | None = None


class _Schedule(_Part):
    actor: tuple[_Reference, ...] = Field(min_length=1)
    serviceType: tuple[_Concept, ...] = ()


class _Slot(_Part):
    schedule: _Reference
    status: Literal["busy", "free", "busy-unavailable", "busy-tentative", "entered-in-error"]
    start: AwareDatetime
    end: AwareDatetime


_MODELS: dict[str, type[_Part]] = {
    "Practitioner": _Practitioner,
    "PractitionerRole": _Role,
    "Location": _Location,
    "Schedule": _Schedule,
    "Slot": _Slot,
}


@dataclass
class _Resources:
    """All resources of a file by kind, then by each name they are referred to; ``line`` says where each stood."""

    file: str
    by_key: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in _MODELS})
    line: dict[str, int] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)  # fullUrl ─▶ key

    def add(self, number: int, value: Any, full_url: str) -> Fault | None:
        """Keep a resource of a kind that we use."""
        kind = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(kind, str):
            return Fault(self.file, number, "resourceType", "not a FHIR resource")
        if kind not in _MODELS:
            return None
        name = value.get("id") or full_url.rsplit(":", 1)[-1].rsplit("/", 1)[-1]
        if not isinstance(name, str) or not name:
            return Fault(self.file, number, f"{kind}.id", "the resource has neither an id nor a fullUrl")
        key = f"{kind}/{name}"
        if key in self.line:
            return Fault(self.file, number, f"{kind}.id", "the id appeared on an earlier resource")
        try:
            self.by_key[kind][key] = _MODELS[kind].model_validate(value)
        except ValidationError as error:
            fault = fault_of(error, self.file, number)
            return replace(fault, field=f"{kind}.{fault.field}")
        self.line[key] = number
        if full_url:
            self.alias[full_url] = key
        return None

    def key(self, reference: _Reference) -> str:
        """``Kind/id`` of what is referred to: relative, absolute, with a version, or by its fullUrl."""
        target = reference.reference.split("/_history/")[0]
        return self.alias.get(target) or "/".join(target.split("/")[-2:])


def read_fhir_doctors(path: Path) -> Iterator[Doctor | Fault]:
    """Every fault of ``path``, then every active doctor with the slots."""
    resources = _Resources(str(path))
    for found in _entries(path):
        fault = found if isinstance(found, Fault) else resources.add(*found)
        if fault is not None:
            yield fault
    slots: dict[str, list[Slot]] = {}
    modes: dict[str, dict[str, None]] = {}
    yield from _fill_slots(resources, slots, modes)
    doctors = []
    for key, role in resources.by_key["PractitionerRole"].items():
        if role.active:
            made = _doctor(resources, key, role, slots.get(key, []), tuple(modes.get(key, ())))
            if isinstance(made, Fault):
                yield made
            else:
                doctors.append(made)
    yield from _without_role(resources)
    if not doctors and not resources.line:
        yield Fault(str(path), 1, "", "no PractitionerRole, Schedule or Slot of FHIR was found")
    yield from doctors


def _entries(path: Path) -> Iterator[tuple[int, Any, str] | Fault]:
    """Number, resource and fullUrl of each entry."""
    file = str(path)
    if path.suffix.lower() in (".ndjson", ".jsonl"):
        for number, text, reason in text_lines(path, guess_encoding(path), newline="\n"):
            if reason:
                yield Fault(file, number, "", reason)
            elif text.strip():
                yield _parsed(file, number, text)
        return
    content = read_whole(path)
    whole = content if isinstance(content, Fault) else _parsed(file, 1, content)
    if isinstance(whole, Fault):
        yield whole
        return
    value = whole[1]
    entries = value.get("entry", [value]) if isinstance(value, dict) else value
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], start=1):
        is_entry = isinstance(entry, dict) and "resource" in entry
        full_url = entry.get("fullUrl") if is_entry else None
        yield number, entry["resource"] if is_entry else entry, full_url if isinstance(full_url, str) else ""


def _parsed(file: str, number: int, text: str) -> tuple[int, Any, str] | Fault:
    try:
        return number, parse_json(text), ""
    except ValueError as error:
        return Fault(file, number, "", str(error))


def _doctor(resources: _Resources, key: str, role: _Role, slots: list[Slot], modes: tuple[str, ...]) -> Doctor | Fault:
    line = resources.line[key]
    person = resources.by_key["Practitioner"].get(resources.key(role.practitioner), _Practitioner())
    name = next((name.whole for name in person.name if name.whole), role.practitioner.display)
    if not name:
        return Fault(resources.file, line, "PractitionerRole.practitioner", "the practitioner has no name in this file")
    found = [next(filter(None, map(find_specialty, concept.names)), None) for concept in role.specialty]
    if None in found:
        number = found.index(None)
        called = role.specialty[number].names[:1] or ["an empty element"]
        reason = f"{called[0][:40]!r} is no specialty; add it as an alias to specialties.yaml"
        return Fault(resources.file, line, f"PractitionerRole.specialty[{number}]", reason)
    learnt = [find_specialty(name) for held in person.qualification for name in held.code.names]
    specialties = [specialty for specialty in found or learnt if specialty is not None]
    if not specialties:
        return Fault(resources.file, line, "PractitionerRole.specialty", "the doctor has no specialty")
    sites = (resources.by_key["Location"].get(resources.key(place)) for place in role.location)
    languages = (next(filter(None, map(find_language, reversed(spoken.names))), None) for spoken in person.communication)
    return Doctor(
        doctor_id=key.partition("/")[2],
        display_name=name,
        specialties=tuple(dict.fromkeys(specialties)),
        site=next((site.name for site in sites if site and site.name), None),
        modes=modes,
        languages=tuple(dict.fromkeys(language for language in languages if language)),
        slots=tuple(sorted(slots, key=lambda slot: slot.start)),
    )


def _fill_slots(resources: _Resources, slots: dict[str, list[Slot]], modes: dict[str, dict[str, None]]) -> Iterator[Fault]:
    """Give each slot to the role that its schedule belongs to."""
    owners: dict[str, str] = {}
    for key, schedule in resources.by_key["Schedule"].items():
        owner = _owner(resources, schedule)
        if owner is None:
            yield Fault(
                resources.file, resources.line[key], "Schedule.actor", "the actors name no one PractitionerRole of this file"
            )
            continue
        owners[key] = owner
        for mode in filter(None, (find_mode(name) for kind in schedule.serviceType for name in kind.names)):
            modes.setdefault(owner, {})[mode] = None
    for key, slot in resources.by_key["Slot"].items():
        line, schedule = resources.line[key], resources.key(slot.schedule)
        if schedule not in resources.by_key["Schedule"]:
            yield Fault(resources.file, line, "Slot.schedule", "the schedule is not in this file")
        elif slot.end <= slot.start:
            yield Fault(resources.file, line, "Slot.end", "the slot does not end after it starts")
        elif schedule in owners and slot.status != "entered-in-error":
            times = [time.isoformat(timespec="minutes") for time in (slot.start, slot.end)]
            status: Literal["free", "busy"] = "free" if slot.status == "free" else "busy"
            slots.setdefault(owners[schedule], []).append(Slot(key.partition("/")[2], times[0], times[1], status))


def _owner(resources: _Resources, schedule: _Schedule) -> str | None:
    """The role that a schedule belongs to; None when it cannot be told."""
    actors, roles = {resources.key(actor) for actor in schedule.actor}, resources.by_key["PractitionerRole"]
    named = [key for key in roles if key in actors]
    persons = [key for key, role in roles.items() if resources.key(role.practitioner) in actors]
    at_place = [key for key in persons if {resources.key(place) for place in roles[key].location} & actors]
    return next((keys[0] for keys in (named, persons, at_place) if len(keys) == 1), None)


def _without_role(resources: _Resources) -> Iterator[Fault]:
    employed = {resources.key(role.practitioner) for role in resources.by_key["PractitionerRole"].values()}
    for key in resources.by_key["Practitioner"]:
        if key not in employed:
            yield Fault(resources.file, resources.line[key], "Practitioner", "no PractitionerRole names this practitioner")
