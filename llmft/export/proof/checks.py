"""One thing that was measured of a file, all of them together, and the table that shows them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was measured; ``measured`` is None when nothing was, and ``detail`` says why."""

    name: str
    passed: bool
    measured: float | str | None
    threshold: str
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of one file."""

    file: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the file may be shipped."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For verify.json."""
        return {"file": self.file, "passed": self.passed, "checks": [asdict(check) for check in self.checks]}


def print_report(report: Report) -> None:
    """The checks as a table on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{report.file}: {'verified' if report.passed else 'NOT the model that was trained'}")
    for column in ("check", "", "measured", "due", "detail"):
        table.add_column(column)
    for check in report.checks:
        measured = f"{check.measured:.3g}" if isinstance(check.measured, float) else check.measured or "–"
        mark = Text("ok", style="green") if check.passed else Text("FAILED", style="red")
        table.add_row(*map(Text, (check.name,)), mark, *map(Text, (measured, check.threshold, check.detail)))
    Console().print(table)
