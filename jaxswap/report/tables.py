"""Fixed-width text tables: plain ASCII, no colour, right for a terminal and for a mail."""

from collections.abc import Mapping, Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Lines of a table; the first `left` columns are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """The same as Markdown."""
    rule = [":--" if index < left else "--:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def rows_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of dicts; what is the same in all rows stands in a line above it."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    same = [key for key in keys if len(rows) > 1 and len({repr(row.get(key)) for row in rows}) == 1]
    header = [key for key in keys if key not in same]
    above = ", ".join(f"{key} {_cell(rows[0][key])}" for key in same if rows[0].get(key) is not None)
    text = text_table(header, [[_cell(row.get(key)) for key in header] for row in rows], 2)
    return f"{above}\n{text}" if above else text


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def number(value: float) -> str:
    """A count per 1,000 accesses: three decimals below 1, fewer above, a plain 0 for nothing."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.3f}" if size < 1 else f"{value:.2f}" if size < 100 else f"{value:,.1f}"


def change(value: float, base: float) -> str:
    """ "12.3 -> 4.5 (-63%)"."""
    text = f"{number(base)} -> {number(value)}"
    if value == base:
        return f"{text} (same)"
    return f"{text} ({percent(value, base)})" if base else text


def percent(value: float, base: float) -> str:
    """How a value differs from a base, "-63%"; "" where the base is nothing."""
    if not base:
        return ""
    change = 100 * (value / base - 1)
    digits = 0 if abs(change) >= 1 else 1 if abs(change) >= 0.1 else 2
    return f"{change:+.{digits}f}%"


def mebibytes(size: int) -> str:
    """Bytes as MiB with one decimal."""
    return f"{size / (1 << 20):.1f} MiB"
