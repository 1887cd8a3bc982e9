"""Forms that no kernel of 7.2 / 7.3 is, each with one bug."""

from dataclasses import replace

from jaxswap.swaptable.forms import MERGED

PLANTED = {
    "no-second-check": replace(MERGED, second_check=False),
    "empty-shadow-restored": replace(MERGED, undo_keeps_shadow=False),
    "fallback-counted-on-eexist": replace(MERGED, counts_eexist=True),
}
