"""A table that fits the terminal: where it is too narrow the columns of least weight are left out and named, none is cut to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

STAYS: Final = 99
"""Weight of a column without which a row says nothing."""
_NARROWEST: Final = 6
"""Characters to which a column of words may be folded."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A column: its title, whether it holds numbers (or words, which may be folded), and its weight: the lightest is left out first."""

    title: str
    number: bool = True
    weight: int = STAYS


@dataclass(slots=True)
class FittingTable:
    """Headings and rows, drawn as wide as the console allows. A row has one cell a heading."""

    headings: Sequence[Heading]
    rows: list[Sequence[RenderableType]] = field(default_factory=list)

    def add_row(self, *cells: RenderableType) -> None:
        """Add a row, one cell a heading."""
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw what fits, and below it the names of what does not."""
        kept = list(range(len(self.headings)))
        left_out: list[int] = []
        table = self._drawn(kept)
        while Measurement.get(console, options.update(max_width=10_000), table).maximum > options.max_width:
            lightest = min(kept, key=lambda place: (self.headings[place].weight, -place))
            if self.headings[lightest].weight == STAYS:
                break
            kept.remove(lightest)
            left_out.append(lightest)
            table = self._drawn(kept)
        yield table
        if left_out:
            names = ", ".join(self.headings[place].title for place in sorted(left_out) if self.headings[place].title)
            yield Text(f"left out, as the terminal is {options.max_width} wide: {names} (--format csv has them)", "dim")

    def _drawn(self, kept: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in (self.headings[place] for place in kept):
            if heading.number:
                table.add_column(Text(heading.title), justify="right", no_wrap=True)
            else:
                table.add_column(Text(heading.title), min_width=min(_NARROWEST, len(heading.title)), overflow="fold")
        for row in self.rows:
            table.add_row(*(row[place] for place in kept))
        return table
