"""rand() of the GNU C library with its default state: additive feedback with lags 3 and 31 (TYPE_3)."""

from collections.abc import Iterator

_MODULUS, _MULTIPLIER = 2_147_483_647, 16_807
_LAG, _SHORT_LAG, _THROWN_AWAY = 31, 3, 310


def rand(seed: int = 1) -> Iterator[int]:
    """The numbers rand() gives after srand(seed), 0 .. 2^31 - 1; a program that never seeds has seed 1.

    31 words come from a Lehmer generator (multiplier 16807, modulus 2^31 - 1) that starts at the seed; the
    first three of them come once more. Each further word is the sum mod 2^32 of those 31 and 3 before it.
    The first 310 sums are thrown away; the output is a sum without its lowest bit.
    """
    seed &= 0xFFFFFFFF
    # the seed is taken as a signed int; a remainder has the sign of what is divided, as in C
    word = (seed - (1 << 32) if seed >> 31 else seed) or 1
    state = [word & 0xFFFFFFFF]
    for _ in range(_LAG - 1):
        quotient, rest = divmod(abs(word), 127_773)
        sign = -1 if word < 0 else 1
        word = sign * (_MULTIPLIER * rest - 2_836 * quotient)
        word += _MODULUS if word < 0 else 0
        state.append(word)
    at = _SHORT_LAG
    for count in range(1 << 62):
        # state[at] is 31 words back, state[at - 3] three; they are added in place
        state[at] = new = (state[at] + state[at - _SHORT_LAG]) & 0xFFFFFFFF
        at = at + 1 if at + 1 < _LAG else 0
        if count >= _THROWN_AWAY:
            yield new >> 1
