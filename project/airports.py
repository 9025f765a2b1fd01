"""Reading and judging the rows of an airports file (see data/README.md), one at a time."""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parent / "data"

COLUMNS: Final = ["iata", "name", "city", "state", "country", "latitude", "longitude"]
# Three characters are an airport's code; small airfields only have a local one of four, such as 11IS.
CODE: Final = re.compile(r"[A-Z0-9]{3,4}")
STATE: Final = re.compile(r"[A-Z]{2}")
MISSING: Final = frozenset({"", "NA"})
# Everything else lies north and west, so these get the wrong sign easily.
EAST_OF_GREENWICH: Final = frozenset({"GU", "CQ"})  # Guam, Northern Mariana Islands
SOUTH_OF_THE_EQUATOR: Final = frozenset({"AS"})  # American Samoa


class UnreadableFile(Exception):
    """The file is not a table of airports at all, so no row of it can be judged."""


@dataclass(frozen=True)
class Row:
    """A data row; `line` is its line in the file, counted from 1, and the header is line 1."""

    line: int
    fields: list[str]


@dataclass(frozen=True)
class Rejected:
    line: int
    code: str
    reason: str


@dataclass
class Report:
    """The counts so far and the rejected rows; takes rows one by one and keeps none of the good ones.

    `accepted` and the length of `rejected` add up to `total`, the numbers in `states` to `accepted`. While a file is
    being read, the metadata of the run has only the latest of the rejected rows.
    """

    file: str
    total: int = 0
    accepted: int = 0
    states: dict[str, int] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def rejected_count(self) -> int:
        return self.total - self.accepted

    def add(self, row: Row) -> None:
        self.total += 1
        if reasons := list(faults(row.fields)):
            self.rejected.append(Rejected(line=row.line, code=row.fields[0], reason="; ".join(reasons)))
        else:
            state = row.fields[COLUMNS.index("state")]
            self.accepted += 1
            self.states[state] = self.states.get(state, 0) + 1


def names() -> list[str]:
    """The files that can be imported: what lies in `data/` and nothing else."""
    return sorted(path.name for path in DATA.glob("*.csv"))


def read(path: Path) -> Iterator[Row]:
    """The rows of a file one after the other. Raises UnreadableFile."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header != COLUMNS:
                raise UnreadableFile(f"{path.name} must start with the columns {','.join(COLUMNS)}.")
            for fields in lines:
                if fields:  # an empty line is no row
                    yield Row(lines.line_num, fields)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableFile(f"{path.name} cannot be read: {error}") from error


def faults(fields: list[str]) -> Iterator[str]:
    """Why a row cannot be used: one text per fault, none for a good row."""
    if len(fields) != len(COLUMNS):
        yield f"{len(fields)} fields instead of {len(COLUMNS)}"
        return
    code, name, city, state, country, latitude, longitude = fields
    if not CODE.fullmatch(code):
        yield f"code {code!r} is not 3 or 4 capital letters or digits"
    for label, value in {"name": name, "city": city, "state": state}.items():
        if value.strip() in MISSING:
            yield f"no {label}"
    if state.strip() not in MISSING and not STATE.fullmatch(state):
        yield f"state {state!r} is not two capital letters"
    if country != "USA":
        yield f"country {country!r} is not USA"
    north, east = degrees(latitude, 90), degrees(longitude, 180)
    if north is None:
        yield f"latitude {latitude!r} is not a number from -90 to 90"
    elif north > 0 and state in SOUTH_OF_THE_EQUATOR:
        yield f"latitude {latitude} has the wrong sign: {state} lies south of the equator"
    if east is None:
        yield f"longitude {longitude!r} is not a number from -180 to 180"
    elif east < 0 and state in EAST_OF_GREENWICH:
        yield f"longitude {longitude} has the wrong sign: {state} lies east of Greenwich"


def degrees(text: str, limit: int) -> float | None:
    """The number, if it is one within ±limit."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= limit else None
