"""Random workloads of every operation, small enough to meet each other's pages often."""

import random

from jaxswap.machine.settings import THP

PAGES = 1536


def random_text(seed: int, operations: int, pages: int = PAGES, mapped: bool = False) -> str:
    """A workload in text form; `mapped` ones come and go by MAP and UNMAP."""
    rng = random.Random(seed)
    advice = rng.choice(["plain", "huge", "plain"])
    lines = [f"REGION {pages} {advice}"]
    if mapped:
        middle = rng.randrange(300, 900)
        lines += [f"MAP 0 {middle} {advice}", f"MAP {middle} {pages - middle} plain"]
    else:
        lines.append(f"MADVNOHUGE {pages // 2} {pages // 4}")
    if rng.random() < 0.5:
        lines += [f"FILL 0 {pages}", f"PAGEOUT 0 {pages}"]
    kinds = ["READ", "READN", "TOUCH", "FILL", "DONTNEED", "PAGEOUT", "ZERO", "WILLNEED", "COLD"]
    weights = [20, 14, 14, 14, 12, 12, 6, 6, 3, 2, 2, 3, 2]
    kinds += ["ADVICE", "EQUAL", "WHOLE", "SET"]
    for _ in range(operations):
        if rng.random() < 0.5:
            n = 16 * rng.choice([1, 1, 2, 4])
            v = rng.randrange(pages // 16) * 16
        else:
            n, v = rng.choice([1, 2, 3, 5, 8, 13]), rng.randrange(pages)
        n = min(n, pages - v)
        kind = rng.choices(kinds, weights)[0]
        if kind in ("READ", "TOUCH"):
            lines.append(f"{kind} {v}")
        elif kind == "ADVICE":
            start = v // 64 * 64
            if mapped:
                length = min(64, pages - start)
                lines += [f"UNMAP {start} {length}", f"MAP {start} {length} {rng.choice(['plain', 'huge'])}"]
            else:
                lines.append(f"{rng.choice(['MADVHUGE', 'MADVNOHUGE'])} {start} {min(64, pages - start)}")
        elif kind == "WHOLE":
            block = rng.randrange(pages // 512) * 512
            lines.append(f"{rng.choice(['DONTNEED', 'DONTNEED', 'PAGEOUT', 'COLD', 'FILL'])} {block} 512")
        elif kind == "SET":
            file = rng.choice(["", *(f"hugepages-{size}kB/" for size in (16, 64, 64, 256, 2048))])
            modes = ["always", "madvise", "never", "inherit"][: 4 if file else 3]
            lines.append(f"SET {THP}{file}enabled {rng.choice(modes)}")
        elif kind == "EQUAL":
            # Advice that becomes equal: VMAs merge, unless each had its own pages before.
            start = v // 128 * 128
            length = min(rng.choice([128, 512]), pages - start)
            lines.append(f"{rng.choice(['MADVHUGE', 'MADVHUGE', 'MADVNOHUGE'])} {start} {length}")
        elif kind == "PAGEOUT" and rng.random() < 0.3:
            lines.append(f"PAGEOUT {v} {min(rng.choice([64, 128, 512]), pages - v)}")
        elif kind in ("ZERO", "WILLNEED"):
            lines.append(f"{kind} {v} {min(n, rng.choice([1, 2, 4, 16]))}")
        else:
            lines.append(f"{kind} {v} {n}")
    return "\n".join(lines) + "\n"


def random_forks(
    seed: int,
    operations: int,
    pages: int = 200,
    processes: int = 4,
    cpus: int = 1,
    places: bool = False,
    cgroups: tuple[str, ...] = (),
) -> str:
    """A workload of processes that come and go, on some CPUs and between some cgroups; its few pages are
    shared densely.

    places: it has places for four processes whoever comes, so that all such workloads share a program.
    """
    rng = random.Random(seed)
    advice = rng.choice(["plain", "huge", "plain"])
    lines, living = [f"REGION {pages} {advice}"], [0]
    if rng.random() < 0.4:
        lines.append(f"MADVNOHUGE {pages // 2} {pages // 4}")
    if places:
        lines += ["FORK 1", "p1 FORK 2", "p2 FORK 3", "p1 EXIT", "p2 EXIT", "p3 EXIT"]
    lines += [f"CGROUP {name}" for name in cgroups]
    if rng.random() < 0.6:
        lines.append(f"FILL 0 {pages}")
        if rng.random() < 0.6:
            lines.append(f"PAGEOUT 0 {pages}")
    kinds = ["READ", "READN", "TOUCH", "FILL", "DONTNEED", "PAGEOUT", "ZERO", "WILLNEED", "COLD"]
    weights = [20, 14, 14, 14, 12, 16, 6, 8, 3, 2, 2, 2, 7, 2, 6]
    kinds += ["ADVICE", "WHOLE", "MAP", "FORK", "EXIT", "AHEAD"]
    if cgroups:
        kinds, weights = [*kinds, "CGROUP"], [*weights, 6]
    for _ in range(operations):
        process = rng.choice(living)
        prefix = f"@{rng.randrange(cpus)} " if cpus > 1 else ""
        prefix += f"p{process} " if process else ""
        kind = rng.choices(kinds, weights)[0]
        if rng.random() < 0.5:
            n, v = 16 * rng.choice([1, 1, 2, 4]), rng.randrange(pages // 16) * 16
        else:
            n, v = rng.choice([1, 2, 3, 5, 8, 13]), rng.randrange(pages)
        n = min(n, pages - v)
        start, length = v // 64 * 64, min(64, pages - v // 64 * 64)
        if kind == "FORK":
            if len(living) < processes:
                child = min(set(range(1, processes + 1)) - set(living))
                living.append(child)
                lines.append(f"{prefix}FORK {child}")
        elif kind == "EXIT":
            if process:
                living.remove(process)
                lines.append(f"{prefix}EXIT")
        elif kind in ("READ", "TOUCH"):
            lines.append(f"{prefix}{kind} {v}")
        elif kind == "ADVICE":
            lines.append(f"{prefix}{rng.choice(['MADVHUGE', 'MADVNOHUGE'])} {start} {length}")
        elif kind == "CGROUP":
            lines.append(f"{prefix}CGROUP {rng.choice(cgroups)}")
        elif kind == "MAP":
            lines.append(f"{prefix}UNMAP {start} {length}")
            lines.append(f"{prefix}MAP {start} {length} {rng.choice(['plain', 'huge'])}")
        elif kind == "AHEAD":
            # Folios that keep their slots until 6.18.
            lines += [f"{prefix}PAGEOUT {start} {length}", f"{prefix}WILLNEED {start} {length}"]
            lines.append(f"{prefix}READN {start} {length}")
        elif kind == "WHOLE":
            block = rng.randrange(-(-pages // 512)) * 512
            call = rng.choice(["DONTNEED", "PAGEOUT", "FILL", "COLD", "READN"])
            lines.append(f"{prefix}{call} {block} {min(512, pages - block)}")
        elif kind in ("ZERO", "WILLNEED"):
            lines.append(f"{prefix}{kind} {v} {min(n, rng.choice([1, 2, 4, 16]))}")
        else:
            lines.append(f"{prefix}{kind} {v} {n}")
    return "\n".join(lines) + "\n"


TORN_PAGES = 1500
"""Pages that torn_text fills before it tears folios: under a limit little above, nothing is reclaimed yet."""


def torn_text(seed: int) -> str:
    """Large folios of which many lose pages, in no order; then memory runs short, with most pages in use."""
    rng = random.Random(seed)
    size = rng.choice([4, 4, 8, 64])
    lines = ["REGION 4096 huge", f"FILL 0 {TORN_PAGES}"]
    bases = range(0, TORN_PAGES, size)
    for base in rng.sample(bases, rng.randint(len(bases) // 3, len(bases))):
        for _ in range(rng.choice([1, 1, 1, 3])):
            start = min(base + rng.randrange(size), TORN_PAGES - 1)
            lines.append(f"DONTNEED {start} {min(rng.choice([1, 1, 3, size]), TORN_PAGES - start)}")
    at = 2048
    for _ in range(rng.randint(1, 12)):
        for _ in range(rng.randint(0, 3)):
            start = rng.randrange(TORN_PAGES)
            lines.append(f"READN {start} {min(rng.choice([40, 400, 2000]), TORN_PAGES - start)}")
        lines.append(f"FILL {at} {rng.choice([16, 48, 160])}")
        at += 160
    return "\n".join(lines) + "\n"
