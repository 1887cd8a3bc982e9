"""The heuristics there are: what each looks at, reads and takes; as a table or as JSON."""

from collections.abc import Sequence
from typing import Any

from jaxswap.policy.describe import Description
from jaxswap.report.tables import text_table


def policies_text(described: Sequence[Description]) -> str:
    """A row a heuristic, its parameters and what it does below."""
    rows = [
        [one.name, " ".join(one.features), "yes" if one.learns else "", _span(one.ptes), _span(one.slots)]
        for one in described
    ]
    header = ["heuristic", "looks at", "learns", "PTEs read", "slots read"]
    width = max(len(one.name) for one in described)
    lines = []
    for one in described:
        lines.append(f"{one.name:<{width}}  {one.doc}")
        lines += [
            f"{'':<{width}}  {param.name} = {param.low} .. {param.high}, default {param.default}: {param.doc}"
            for param in one.params
        ]
    about = "Read: by one decision, beyond what the kernel reads anyway; with default parameters."
    leaving = [(one.name, one.swapout) for one in described if one.swapout is not None]
    there = [[name, " ".join(at.features), _span(at.ptes), _span(at.pages)] for name, at in leaving]
    tables = [text_table(header, rows, 3)]
    if there:
        tables.append(text_table(["at swap-out", "looks at", "PTEs read", "pages read"], there, 2))
    return "\n\n".join([*tables, "\n".join(lines), about])


def policies_json(described: Sequence[Description]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [
        {
            "name": one.name,
            "doc": one.doc,
            "features": list(one.features),
            "learns": one.learns,
            "ptes_read": list(one.ptes),
            "slots_read": list(one.slots),
            "swapout": None
            if one.swapout is None
            else {
                "features": list(one.swapout.features),
                "ptes_read": list(one.swapout.ptes),
                "pages_read": list(one.swapout.pages),
            },
            "params": [param._asdict() for param in one.params],
            "c": one.c,
        }
        for one in described
    ]


def _span(values: tuple[int, int]) -> str:
    low, high = values
    return str(low) if low == high else f"{low} .. {high}"
