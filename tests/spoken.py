"""Numbers written out in words, for tests of what reads them."""

from __future__ import annotations

FR_WORDS = "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
FR = FR_WORDS.split()
FR_TENS = {2: "vingt", 3: "trente", 4: "quarante", 5: "cinquante", 6: "soixante"}
EN_WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
EN = [*EN_WORDS.split(), "eighteen", "nineteen"]
EN_TENS = dict(enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2))


def french(number: int) -> str:
    """0 to 99, without hyphens, as speech recognition writes it."""
    if number < 17:
        return FR[number]
    if number < 20:
        return f"dix {FR[number - 10]}"
    tens, unit = divmod(number, 10)
    if tens in (7, 9):
        tens, unit = tens - 1, unit + 10
    if tens == 8:
        return f"quatre vingt {french(unit)}" if unit else "quatre vingts"
    if unit in (1, 11):
        return f"{FR_TENS[tens]} et {FR[unit]}"
    return f"{FR_TENS[tens]} {french(unit)}" if unit else FR_TENS[tens]


def english(number: int) -> str:
    """0 to 99, without hyphens."""
    if number < 20:
        return EN[number]
    tens, unit = divmod(number, 10)
    return f"{EN_TENS[tens]} {EN[unit]}" if unit else EN_TENS[tens]


def pairs(digits: str, separator: str) -> str:
    """A French phone number dictated in pairs: "zéro six, douze, trente quatre"."""
    two_by_two = [digits[start : start + 2] for start in range(0, len(digits), 2)]
    return separator.join(f"zéro {french(int(pair))}" if pair[0] == "0" else french(int(pair)) for pair in two_by_two)


def one_by_one(digits: str) -> str:
    """An English phone number dictated digit by digit, zero as "oh"."""
    return " ".join("oh" if digit == "0" else EN[int(digit)] for digit in digits)
