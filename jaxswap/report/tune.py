"""The report of a search for heuristics: training and held-out workloads apart, who is better, the winner."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxswap.policy import POLICIES
from jaxswap.policy.describe import describe
from jaxswap.report.search import FORESEES, Search, group_name
from jaxswap.report.sweep import AXIS_NAMES
from jaxswap.report.tables import markdown_table, number, text_table
from jaxswap.report.tune_figures import draw
from jaxswap.sweep.objective import AXES
from jaxswap.sweep.space import sysfs_lines
from jaxswap.tune.compare import LEVEL, Difference
from jaxswap.workload.files import make_folder, write_atomic

TOP = 8
"""Rows of the table of the training workloads, the reference apart."""


def write_report(search: Search) -> str:
    """Write report.txt, results.md and figures/{fronts,refusals,sensitivity}.{png,pdf,csv} into the search's
    directory; returns the text to print."""
    text = report_text(search)
    write_atomic(search.folder / "report.txt", (text + "\n").encode(), "report")
    write_atomic(search.folder / "results.md", (results_page(search) + "\n").encode(), "results")
    make_folder(search.folder / "figures", "figure")
    drawn = draw(search)
    return f"{text}\n\nfigures (PDF and CSV beside each): {', '.join(map(str, drawn))}\n"


def report_text(search: Search) -> str:
    """All of it as text."""
    parts = [
        "\n".join(search.said),
        "Counts per 1,000 accesses.",
        _headed(
            "Training workloads: what the search saw; nothing here shows that a rule is better",
            _train(search),
        ),
        _headed("Held-out workloads: candidate less kernel's rule, mean over the units", _legend()),
    ]
    for group, among in search.groups().items():
        said = f"{_units(search, among)}\n{text_table(*_held_out(search, among), 3)}"
        parts.append(_headed(f"Held out: {group_name(group)}", said))
        parts.append(text_table(*_fails(search, among), 1))
    parts.append(_headed("The winner: the best on the training workloads", _winner(search)))
    parts.append(_headed("To paste into a mail", mail_table(search)))
    return "\n\n".join(parts)


def results_page(search: Search) -> str:
    """What the held-out workloads gave, as Markdown: a part of a page."""
    winner = search.held_out.candidates[search.winner]
    parts = [
        "\n".join(f"    {line}" for line in search.said),
        f"Counts per 1,000 accesses; of {len(search.train.candidates)} settings on "
        f"{len(search.train.results)} training workloads `{winner}` was best. {_legend()}",
    ]
    for group, among in search.groups().items():
        parts.append(f"### {group_name(group)[0].upper()}{group_name(group)[1:]}")
        parts.append(_units(search, among))
        parts.append(markdown_table(*_held_out(search, among), 3))
        parts.append(markdown_table(*_fails(search, among), 1))
    return "\n\n".join(parts)


def _headed(title: str, body: str) -> str:
    return f"{title}\n{'=' * len(title)}\n{body}"


def _legend() -> str:
    return (
        f"[ , ]: bootstrap interval of the mean, {LEVEL:.0%}, units drawn with replacement. more: units with "
        "more than\nthe kernel's rule. dominates: the interval of failed + fallbacks is below zero, the mean "
        "differences of major\nfaults and useless pages are at most zero; trades: one of these is not; not "
        f"shown: the interval reaches zero.\n{FORESEES}: for orientation; no kernel can have it, and it is "
        "no bound."
    )


def _train(search: Search) -> str:
    means = {name: values.mean(axis=0) for name, values in search.train.measured().items()}
    beside = range(1 + search.shown)
    tried = [int(i) for i in search.order if i not in beside]
    kept = [*beside, *tried[:TOP]]
    columns = (*AXES, "large_coverage", "refusals")
    rows = [
        [
            search.role(place),
            search.train.candidates[i].mthp or "none",
            str(search.train.candidates[i].policy),
            *(number(means[name][i]) for name in columns),
        ]
        for place, i in enumerate(kept)
    ]
    header = [
        "",
        "sizes kB",
        "heuristic",
        *(AXIS_NAMES.get(name, name.replace("_", " ")) for name in columns),
    ]
    left = len(search.train.candidates) - len(kept)
    more = f"\n({left} more in train.parquet)" if left else ""
    return f"{len(search.train.results)} workloads, means\n{text_table(header, rows, 3)}{more}"


def _units(search: Search, among: Sequence[int]) -> str:
    return f"{search.compared(0, among).units} units; the kernel's rule in absolute numbers"


def _held_out(search: Search, among: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each candidate's differences, and the verdict."""
    measured = search.held_out.measured(among)
    rows = []
    for i, candidate in enumerate(search.held_out.candidates):
        setting = [search.role(i), candidate.mthp or "none", str(candidate.policy)]
        large = number(measured["large_coverage"][:, i].mean())
        if i == 0:
            rows.append([*setting, *(number(measured[name][:, 0].mean()) for name in AXES), large, ""])
            continue
        if not search.replayed(i, among):
            rows.append([*setting, *[""] * (len(AXES) + 1), "not replayed here"])
            continue
        found = search.compared(i, among)
        dead = any(search.held_out.results[k].oom[i] for k in among)
        cells = [_cell(found.differences[name]) for name in AXES]
        rows.append([*setting, *cells, large, "killed (OOM)" if dead else found.verdict])
    return ["", "sizes kB", "heuristic", *(AXIS_NAMES[name] for name in AXES), "large", "verdict"], rows


_PARTS = {
    "folio thrown away, its charge refused": ("charges_refused", None),
    "no frame, or the slots had changed": ("failed", "charges_refused"),
    "fallback as the charge was refused": ("fallbacks_charge", None),
    "fallback for another reason": ("fallbacks", "fallbacks_charge"),
}
"""Of failed + fallbacks: a metric, less another that is a part of it."""


def _fails(search: Search, among: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what the failed attempts and fallbacks are of the kernel's rule and of the winner."""
    means = {name: values.mean(axis=0) for name, values in search.held_out.measured(among).items()}

    def of(candidate: int, whole: str, part: str | None) -> str:
        return number(means[whole][candidate] - (means[part][candidate] if part else 0))

    rows = [[what, *(of(i, *names) for i in (0, search.winner))] for what, names in _PARTS.items()]
    return ["failed + fallbacks", "kernel's rule", "winner"], rows


def _cell(one: Difference) -> str:
    """ "-3.62 [-5.1, -2.0] more 0"."""
    return f"{_signed(one.mean)} [{_signed(one.low)}, {_signed(one.high)}] more {one.more}"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _winner(search: Search) -> str:
    candidate = search.held_out.candidates[search.winner]
    name, params = candidate.policy.name, dict(candidate.policy.params)
    lines = [
        f"{candidate}",
        *(
            f"    {group_name(group)}: {search.compared(search.winner, among).verdict}"
            for group, among in search.groups().items()
        ),
    ]
    if candidate.sysfs:
        lines += ["expressible in sysfs:", *(f"    {line}" for line in sysfs_lines(candidate.mthp))]
        return "\n".join(lines)
    measured = search.held_out.measured()
    read = ", ".join(
        f"{number(measured[f'{kind}_read'][:, search.winner].mean())} {what} per 1,000 accesses"
        for kind, what in (("ptes", "PTEs"), ("slots", "slots"), ("pages", "pages of content"))
    )
    if name in POLICIES:
        rule = POLICIES[name]
        given = tuple(param._replace(default=params.get(param.name, param.default)) for param in rule.params)
        about = describe(replace(rule, params=given))
        lines.append(
            f"reads at most {about.ptes[1]} PTEs and {about.slots[1]} slots for a fault that may have 2 MiB; "
            f"here, with its sizes, {read}"
        )
        if (leaving := about.swapout) is not None:
            lines.append(
                f"asked at swap-out too: reads at most {leaving.ptes[1]} PTEs and {leaving.pages[1]} pages' "
                "content for a folio of 2 MiB"
            )
        lines += ["as C, to read, not to compile:", "", *(f"    {line}" for line in _c(about.c, params)), ""]
    else:
        lines.append(f"a heuristic of one's own; it read {read}")
    lines += ["the sizes (the rule itself needs a patch):"]
    return "\n".join([*lines, *(f"    {line}" for line in sysfs_lines(candidate.mthp))])


def _c(rule: str, params: Mapping[str, int]) -> list[str]:
    constants = [f"const int {', '.join(f'{name} = {value}' for name, value in params.items())};"]
    return [*(constants if params else []), *rule.splitlines()]


def mail_table(search: Search) -> str:
    """The winner beside the kernel's rule, a row a held-out workload, plain text of at most 80 columns."""
    rows = []
    for group, among in search.groups().items():
        rows.append([group_name(group), *[""] * (2 * len(AXES))])
        for i in among:
            metrics = search.held_out.results[i].metrics
            pairs = [(metrics[name][0], metrics[name][search.winner]) for name in AXES]
            rows.append(
                [f"  {search.held_out.results[i].name}", *(number(value) for pair in pairs for value in pair)]
            )
    header = ["", "failed", "(new)", "majflt", "(new)", "useless", "(new)"]
    return text_table(header, rows, 1)
