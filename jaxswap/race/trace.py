"""A violation as lines that a kernel developer can read beside mm/swap_state.c."""

from jaxswap.race.explore import Move, Violation
from jaxswap.race.start import RANGES, Actor, Start
from jaxswap.race.state import FREE, IN_FOLIO, MAPPED, MAPPING, NONE, PC, PCS, SHADOW, SWAP, ZAPPING, States
from jaxswap.race.steps import Steps
from jaxswap.swaptable.forms import Form
from jaxswap.swaptable.geometry import EBUSY, ENOMEM, ERRNO_NAMES, size_name

LEGEND = (
    "slots: 0-3 shadow of that number, . free, A B ... in folio (small letter: count 0)",
    "pages: s swap entry, z being zapped, m being mapped, - none, A B ... mapped to folio",
)
_PAGES = {NONE: "-", SWAP: "s", ZAPPING: "z", MAPPING: "m"}


def trace_lines(form: Form, slots: int, violation: Violation) -> list[str]:
    """The actors, then a line a step: number, who, what, slots and pages after it; then the cycle, if any."""
    steps = Steps(form, violation.start, slots)
    names = _names(violation.start)
    lines = [f"{name}: {_asks(actor)}" for name, actor in zip(names, violation.start, strict=True)]
    wide = max(map(len, names))
    state = steps.first()
    rows = [("", "", "start", state)]

    def follow(moves: tuple[Move, ...]) -> None:
        nonlocal state
        for a, after in moves:
            rows.append((str(len(rows)), names[a], described(steps, state, after, a), after))
            state = after

    follow(violation.moves)
    cut = len(rows)
    follow(violation.cycle)
    longest = max(len(what) for _, _, what, _ in rows)
    shown = [
        f"{number:>3}  {who:<{wide}}  {what:<{longest}}  {_slots(after)}  {_pages(after)}"
        for number, who, what, after in rows
    ]
    lines += shown[:cut]
    if violation.cycle:
        lines += ["and then for ever:", *shown[cut:]]
    return lines


def described(steps: Steps, before: States, after: States, a: int) -> str:
    """What actor ``a`` did between two single states."""
    actor, pc = steps.start[a], PCS[int(before.pc[a, 0])]
    order, target = int(before.order[a, 0]), actor.target
    held = _folio(before, a)
    at = f"order {order}: "
    if pc in ("LOOK", "LOOK_AGAIN", "LOOK_HOLDING"):
        slot = int(before.slots[target, 0])
        found = f"folio {_letter(slot - IN_FOLIO)}" if slot >= IN_FOLIO else "not cached"
        return f"swap_cache_get_folio(slot {target}): {found}"
    if pc == "SUIT":
        return f"suitable orders: {_orders(int(after.mask[a, 0]))}"
    if pc in ("CHECK", "INSERT"):
        second = pc == "INSERT"
        error = int(steps.add_check(before, a)[0]) if steps.form.second_check or not second else 0
        checked = f"__swap_cache_add_check(slot {target}) = {ERRNO_NAMES[error]}"
        if second and not steps.form.second_check:
            checked = "no second check"
        if not error:
            return f"{at}lock, {checked}" + (f", folio {held} into the cache" if second else "")
        freed = f", folio {held} freed" if second else ""
        return f"{at}lock, {checked}{freed}; {_after_error(steps, before, after, a, error)}"
    if pc in ("FRAME", "CHARGE", "CHARGE_FIRST"):
        what = "allocation" if pc == "FRAME" else f"charge of folio {held}"
        if PCS[int(after.pc[a, 0])] in ("INSERT", "CHARGE_FIRST", "READ", "ADD"):
            return f"{at}folio {_folio(after, a)} allocated" if pc == "FRAME" else f"{at}{what}"
        how = "and from here on" if after.no_memory[0] else "this time"
        if pc == "CHARGE":
            return f"{at}{what} fails, {how}"
        return f"{at}{what} fails, {how}; {_after_error(steps, before, after, a, -ENOMEM)}"
    if pc == "RELEASE":
        return f"{at}folio {held} unlocked and put; {_after_error(steps, before, after, a, -ENOMEM)}"
    if pc == "UNDO":
        return f"{at}lock, folio {held} out of the cache with shadow {_shadow_given(before, after)}"
    if pc == "ADD":
        into = {"READ": "into the cache", "LOOK_HOLDING": "-EEXIST"}
        how = into.get(PCS[int(after.pc[a, 0])], "refused, folio freed; returns")
        return f"{at}lock, swap_cache_add_folio(folio {held}): {how}"
    if pc == "LOCK":
        matches = "matches" if PCS[int(after.pc[a, 0])] == "PTL" else "does not match the entry"
        return f"folio_lock({held}): {matches}"
    if pc == "PTL":
        how = {"PUT": "same", "DROP": "same, but not all of the folio", "BACK": "changed"}
        return f"page-table lock, entry of page {target}: {how[PCS[int(after.pc[a, 0])]]}"
    if pc == "PUT":
        return f"folio_put_swap({held}): {_changed(before, after)} put"
    if pc == "RECLAIM":
        gone = [k for k in range(before.layout.actors) if before.cached[k, 0] > after.cached[k, 0]]
        return f"folio {_letter(gone[0])} out of the cache" if gone else "page-table unlock; returns"
    if pc in ("SLOT", "ZAP"):
        idle = after.pc[a, 0] == PC["DONE"]
        if pc == "ZAP":
            return "page-table lock, entries cleared" + ("; returns" if idle else "")
        return "folio_alloc_swap: no room; returns" if idle else f"folio_alloc_swap: folio {_folio(after, a)}"
    if pc == "LEAVE":
        alone = (before.cached.sum() - after.cached.sum()) > 0
        return f"__remove_mapping: folio {held} {'out of the cache' if alone else 'is held, stays'}; returns"
    plain = {
        "READ": f"folio {held} read and unlocked" + ("" if actor.kind == "fault" else "; returns"),
        "DROP": f"swap_cache_del_folio({held})",
        "MAP": f"set_ptes: folio {held}",
        "FREE": f"folio_free_swap({held})",
        "BACK": f"unlock, folio_put({held}); returns",
        "PUT_ZAPPED": f"swap_put_entries_direct: {_changed(before, after)} put",
        "UNMAP": f"folio {held} unmapped: a count a slot",
    }
    return plain[pc]


def _after_error(steps: Steps, before: States, after: States, a: int, error: int) -> str:
    then = PCS[int(after.pc[a, 0])]
    order = int(before.order[a, 0])
    counted = f"swpin_fallback[{size_name(order)}] +1, " if order else ""
    if then == "LOOK_AGAIN":
        return (counted if steps.form.counts_eexist else "") + "look-up again"
    if then != "DONE":
        return f"{counted}on with order {int(after.order[a, 0])}"
    spent = error in (-ENOMEM, -EBUSY)
    left = int(before.mask[a, 0]) & ((1 << order) - 1)
    if spent and steps.form.thp and not left and not steps.form.ends_at_empty_mask and order:
        return f"{counted}on with order -1"
    return (counted if spent else "") + f"returns {ERRNO_NAMES[error]}"


def _changed(before: States, after: States) -> str:
    places = [str(i) for i in range(before.layout.slots) if before.counts[i, 0] != after.counts[i, 0]]
    return f"count of slot{'s' * (len(places) > 1)} {' '.join(places)}"


def _shadow_given(before: States, after: States) -> str:
    for was, now in zip(before.slots[:, 0].tolist(), after.slots[:, 0].tolist(), strict=True):
        if was != now and now != FREE:
            return str(now - SHADOW)
    return "of none"


def _letter(folio: int) -> str:
    return chr(ord("A") + folio)


def _folio(state: States, a: int) -> str:
    return _letter(int(state.found[a, 0]) - 1)


def _slots(state: States) -> str:
    shown = []
    for word, count in zip(state.slots[:, 0].tolist(), state.counts[:, 0].tolist(), strict=True):
        if word >= IN_FOLIO:
            letter = _letter(word - IN_FOLIO)
            shown.append(letter if count else letter.lower())
        else:
            shown.append("." if word == FREE else str(word - SHADOW))
    return "".join(shown)


def _pages(state: States) -> str:
    return "".join(
        _PAGES[pte] if pte < MAPPED else _letter(pte - MAPPED) for pte in state.ptes[:, 0].tolist()
    )


def _orders(mask: int) -> str:
    return " ".join(str(order) for order in range(mask.bit_length() - 1, -1, -1) if mask >> order & 1)


def _names(start: Start) -> list[str]:
    return [f"CPU {number}" for number in range(len(start))]


def _asks(actor: Actor) -> str:
    if actor.kind in RANGES:
        last = actor.target + actor.orders - 1
        what = {"freeing": "zaps pages", "swapout": "swaps a folio out to slots"}[actor.kind]
        return f"{what} {actor.target} to {last}" if last > actor.target else f"{what[:-1]} {actor.target}"
    what = {"fault": "fault on page", "zswap": "zswap writeback of slot", "shmem": "shmem swap-in of slot"}
    word = "orders" if actor.orders & (actor.orders - 1) else "order"
    return f"{what.get(actor.kind, 'readahead of slot')} {actor.target}, {word} {_orders(actor.orders)}"
