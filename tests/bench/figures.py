"""A figure with its target, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` None: could not be measured (that is no "ok"). ``target`` None: told for information."""

    name: str
    value: float | None
    unit: str
    target: float | None = None
    sense: Literal["≤", "≥"] = "≤"
    digits: int = 0

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.value is None:
            return "NOT MEASURED"
        good = self.value <= self.target if self.sense == "≤" else self.value >= self.target
        return "ok" if good else "MISS"

    def row(self) -> tuple[str, str, str, str]:
        target = "" if self.target is None else f"{self.sense} {self.target:g} {self.unit}"
        value = "–" if self.value is None else f"{self.value:.{self.digits}f} {self.unit}"
        return self.name, target, value, self.verdict

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": None if self.value is None else round(self.value, 4),
            "unit": self.unit,
            "target": self.target,
            "sense": self.sense,
            "verdict": self.verdict,
        }


def table(groups: Sequence[tuple[str, Sequence[Figure]]]) -> str:
    """All figures, aligned, a heading a group."""
    rows = [figure.row() for _, figures in groups for figure in figures]
    widths = [
        max(len(row[column]) for row in [("figure", "target", "measured", ""), *rows]) for column in range(4)
    ]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"  {first}  {'  '.join(others)}".rstrip()

    out = [line(("figure", "target", "measured", "")), line(["-" * width for width in widths])]
    for title, figures in groups:
        out += [title, *(line(figure.row()) for figure in figures)]
    return "\n".join(out)
