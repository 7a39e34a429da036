"""Invented people: who is in a call, and the values that would give them away, written and spoken.

Numbers carry valid checksums; e-mail addresses use domains that are reserved for examples.
"""

from __future__ import annotations

import random
import unicodedata
from functools import cache
from typing import Literal

from pydantic import Field

from llmft.deidentify.span import Roster
from llmft.knowledge import Lang, Strict, load

PHONE_STARTS: dict[Lang, tuple[str, ...]] = {  # fixed lines in France and London: ranges reserved for fiction
    "fr": ("061", "066", "068", "076", "019900", "026191", "046571", "053649"),
    "en": ("0741", "0753", "02079460"),
}
CARD_STARTS = ("4970", "5136", "4539")
PLATE_LETTERS = "ABCDEFGHJKLMNPQRSTVWXYZ"


class Phrases(Strict):
    """What is said around a value, by speaker; ``{slot}`` stands for the value."""

    patient: tuple[str, ...]
    operator: tuple[str, ...]

    def of(self, speaker: Literal["patient", "operator"]) -> tuple[str, ...]:
        """The phrases of one speaker."""
        return self.patient if speaker == "patient" else self.operator


class Inventory(Strict):
    """The lists of knowledge/invented.yaml."""

    date: str
    source: str
    last_names: dict[Lang, tuple[str, ...]]
    first_names: dict[Lang, tuple[str, ...]]
    cities: dict[Lang, tuple[str, ...]]
    streets: dict[Lang, tuple[str, ...]]
    months: dict[Lang, tuple[str, ...]]
    units: dict[Lang, tuple[str, ...]]  # 0 to 19
    tens: dict[Lang, tuple[str, ...]]  # 20 to 90
    domains: dict[Lang, tuple[str, ...]]
    phrases: dict[Lang, Phrases]


class Cast(Strict):
    """The people of one call and their data, as the call centre's own system would hold them."""

    first: str
    last: str
    relative_first: str
    relative_last: str
    operator: str
    doctor: str
    phone: str = Field(pattern=r"^0\d{9,10}$")
    email: str
    address: str
    city: str
    birth: tuple[int, int, int]  # year, month, day

    def roster(self) -> Roster:
        """What de-identification may know of the call."""
        return Roster(
            patient=(f"{self.first} {self.last}",),
            relatives=(f"{self.relative_first} {self.relative_last}",),
            operators=(self.operator,),
            doctors=(self.doctor,),
            phones=(self.phone,),
            emails=(self.email,),
            addresses=(self.address,),
            cities=(self.city,),
        )


@cache
def inventory() -> Inventory:
    """The lists, read once."""
    return Inventory.model_validate(load("invented.yaml"))


def invent_cast(rng: random.Random, lang: Lang) -> Cast:
    """The people of one call."""
    lists = inventory()
    first, relative_first, operator, doctor = rng.sample(lists.first_names[lang], 4)
    last, relative_last, operator_last, doctor_last = rng.sample(lists.last_names[lang], 4)
    local = f"{_ascii(first)}.{_ascii(last)}{rng.randint(10, 99)}"
    return Cast(
        first=first,
        last=last,
        relative_first=relative_first,
        relative_last=relative_last,
        operator=f"{operator} {operator_last}",
        doctor=f"{doctor} {doctor_last}",
        phone=_phone(rng, lang),
        email=f"{local}@{rng.choice(lists.domains[lang])}",
        address=f"{rng.randint(1, 99)} {rng.choice(lists.streets[lang])}",
        city=rng.choice(lists.cities[lang]),
        birth=(rng.randint(1935, 2020), rng.randint(1, 12), rng.randint(1, 28)),
    )


def _ascii(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "".join(letter for letter in letters if letter.isalnum())


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


def _phone(rng: random.Random, lang: Lang) -> str:
    start = rng.choice(PHONE_STARTS[lang])
    return start + _digits(rng, (10 if lang == "fr" else 11) - len(start))


def say_phone(rng: random.Random, lang: Lang, phone: str) -> str:
    """A phone number as it is written by some and said by others."""
    if rng.random() < 0.35:
        return _say_pairs(phone) if lang == "fr" else _say_digits(phone)
    if lang == "en":
        return rng.choice(
            (phone, f"{phone[:5]} {phone[5:]}", f"{phone[:5]} {phone[5:8]} {phone[8:]}", f"+44 {phone[1:5]} {phone[5:]}")
        )
    pairs = [phone[place : place + 2] for place in range(0, 10, 2)]
    separator = rng.choice((" ", " ", "", ".", "-"))
    return f"+33 {phone[1]} {' '.join(pairs[1:])}" if rng.random() < 0.1 else separator.join(pairs)


def _say_pairs(phone: str) -> str:
    pairs = [phone[place : place + 2] for place in range(0, len(phone), 2)]
    return " ".join(f"zéro {number_words(int(pair), 'fr')}" if pair[0] == "0" and pair != "00" else _pair(pair) for pair in pairs)


def _pair(pair: str) -> str:
    return "zéro zéro" if pair == "00" else number_words(int(pair), "fr")


def _say_digits(phone: str) -> str:
    return " ".join("oh" if digit == "0" else inventory().units["en"][int(digit)] for digit in phone)


def number_words(number: int, lang: Lang) -> str:
    """A number from 0 to 99 as it is said."""
    units, tens = inventory().units[lang], inventory().tens[lang]
    if number < 20:
        return units[number]
    ten, unit = divmod(number, 10)
    if lang == "en":
        return tens[ten - 2] + (f"-{units[unit]}" if unit else "")
    if number == 80:
        return "quatre-vingts"
    if ten in (7, 9):  # soixante-dix, quatre-vingt-dix: said from the ten before
        unit += 10
    joint = " et " if unit in (1, 11) and ten < 8 else "-"
    return tens[ten - 2] + (f"{joint}{units[unit]}" if unit else "")


def say_date(rng: random.Random, lang: Lang, date: tuple[int, int, int]) -> str:
    """A full date in one of the forms that people use."""
    year, month, day = date
    name = inventory().months[lang][month - 1]
    written = (f"{day} {name} {year}", f"{day:02d}/{month:02d}/{year}")
    if rng.random() < 0.6:
        return rng.choice(written)
    century, rest = divmod(year, 100)
    if lang == "fr":
        start = "deux mille" if century == 20 else "mille neuf cent"
        return f"{number_words(day, lang)} {name} {start}" + (f" {number_words(rest, lang)}" if rest else "")
    tail = f"oh {inventory().units['en'][rest]}" if 0 < rest < 10 else number_words(rest, lang) if rest else "hundred"
    return f"{name} {number_words(day, lang)} {number_words(century, lang)} {tail}"


def say_email(rng: random.Random, lang: Lang, email: str) -> str:
    """An e-mail address, written or said."""
    if rng.random() < 0.6:
        return email
    at, point = ("arobase", "point") if lang == "fr" else ("at", "dot")
    return email.replace(".", f" {point} ").replace("@", f" {at} ")


def invent_nir(rng: random.Random, birth: tuple[int, int, int]) -> str:
    """A French social security number with its key, sometimes in groups."""
    from stdnum.fr.nir import calc_check_digits

    year, month, _ = birth
    department = rng.choice(("29", "35", "44", "59", "69"))
    body = f"{rng.choice('12')}{year % 100:02d}{month:02d}{department}{rng.randint(1, 299):03d}{_digits(rng, 3)}"
    nir = body + calc_check_digits(body)
    cuts = (0, 1, 3, 5, 7, 10, 13, 15)
    return nir if rng.random() < 0.4 else " ".join(nir[a:b] for a, b in zip(cuts, cuts[1:], strict=False))


def invent_luhn(rng: random.Random, start: str, count: int, group: int) -> str:
    """A number of ``count`` digits whose last one is the Luhn key, sometimes in groups of ``group``."""
    from stdnum.luhn import calc_check_digit

    body = start + _digits(rng, count - 1 - len(start))
    number = body + calc_check_digit(body)
    return number if rng.random() < 0.5 else _grouped(number, group)


def invent_iban(rng: random.Random) -> str:
    """A French IBAN whose national key and check digits are right."""
    from stdnum.iban import calc_check_digits

    bank, branch, account = "30004", _digits(rng, 5), _digits(rng, 11)
    key = 97 - (89 * int(bank) + 15 * int(branch) + 3 * int(account)) % 97
    number = f"{bank}{branch}{account}{key:02d}"
    iban = f"FR{calc_check_digits('FR00' + number)}{number}"
    return iban if rng.random() < 0.4 else _grouped(iban, 4)


def invent_plate(rng: random.Random) -> str:
    """A French number plate."""
    return f"{''.join(rng.choices(PLATE_LETTERS, k=2))}-{rng.randint(100, 999)}-{''.join(rng.choices(PLATE_LETTERS, k=2))}"


def _grouped(number: str, size: int) -> str:
    return " ".join(number[place : place + size] for place in range(0, len(number), size))
