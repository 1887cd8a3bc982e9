"""Lines of a valgrind lackey log: memory accesses parsed in bulk, everything else handed on as text.

The log is read in pieces of some megabytes and never held as a whole. Instruction fetches ("I  addr,size"),
half of a log and more, are recognised by their first byte and cost one comparison.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64

from jaxswap.errors import InputError

PIECE = 16 << 20  # bytes read at a time
_FRONT = 16  # bytes kept free before a piece, so that the 16 bytes before any comma can be read

# value of a hexadecimal digit; 0x80 for every other byte
_HEX = np.full(256, 0x80, np.uint8)
for _digit in range(16):
    _HEX[ord(f"{_digit:x}")] = _digit
# big-endian words of 8 digit bytes: how many of the last are part of the number
_KEEP = np.array([256**count - 1 for count in range(9)], np.uint64)


@dataclass(frozen=True)
class Piece:
    """Some lines of a log, in order.

    key holds one entry a page that a load, store or modify touches: page << 1 | is it a write; position is
    the 0-based line it stands on within the piece. other lists the lines that are no access and no
    instruction, as (position, text). accesses counts L, S and M lines (an access across a page border gives
    two keys), lines all lines.
    """

    key: Int64[np.ndarray, "keys"]
    position: Int64[np.ndarray, "keys"]
    other: list[tuple[int, bytes]]
    accesses: int
    lines: int


def read_pieces(file: BinaryIO, where: str, piece_bytes: int = PIECE) -> Iterator[Piece]:
    """Read a log to its end. Raises InputError with the line number at a damaged access line."""
    rest = b""
    first_line = 1
    while True:
        data = file.read(piece_bytes)
        if data is None or not data:
            break
        cut = data.rfind(b"\n") + 1
        if not cut:
            rest += data
            if len(rest) > piece_bytes:
                raise InputError(
                    f"{where}:{first_line}: a line of more than {piece_bytes} bytes; not a lackey log"
                )
            continue
        piece = parse_piece(b"".join((bytes(_FRONT), rest, data[:cut])), where, first_line)
        rest = data[cut:]
        first_line += piece.lines
        yield piece
    if rest:
        # The run was cut off inside its last line; what is left of it cannot be trusted.
        yield Piece(np.zeros(0, np.int64), np.zeros(0, np.int64), [(0, b"")], 0, 1)


def parse_piece(padded: bytes, where: str, first_line: int) -> Piece:
    """Parse whole lines, which start at byte 16 of `padded` and end in a newline."""
    text = np.frombuffer(padded, np.uint8)
    ends = np.flatnonzero(text[_FRONT:] == ord("\n")) + _FRONT
    starts = np.empty_like(ends)
    starts[0] = _FRONT
    starts[1:] = ends[:-1] + 1
    first = text[starts]
    data = np.flatnonzero(first == ord(" "))
    begin = starts[data]
    letter, end = text[begin + 1], ends[data]
    write = letter != ord("L")
    is_access = (letter == ord("L")) | (letter == ord("S")) | (letter == ord("M"))
    strange = np.flatnonzero((first != ord(" ")) & (first != ord("I")))
    if not is_access.all():
        strange = np.concatenate([strange, data[~is_access]])
        strange.sort()
        data, begin, end, write = data[is_access], begin[is_access], end[is_access], write[is_access]
    other = [(int(i), padded[starts[i] : ends[i]]) for i in strange]
    if not len(data):
        return Piece(np.zeros(0, np.int64), np.zeros(0, np.int64), other, 0, len(ends))
    comma = np.where(
        text[end - 2] == ord(","), end - 2, np.where(text[end - 3] == ord(","), end - 3, end - 4)
    )
    size = _sizes(text, comma, end)
    digits = comma - begin - 3
    bad = (size == 0) | (digits < 8) | (digits > 16) | (text[begin + 2] != ord(" "))
    if not bad.any():
        address, wrong = _addresses(text, comma, digits)
        bad |= wrong
    if bad.any():
        i = int(data[int(np.flatnonzero(bad)[0])])
        shown = padded[starts[i] : min(int(ends[i]), int(starts[i]) + 60)].decode("utf-8", "backslashreplace")
        message = f"damaged access line {shown!r} (' L addr,size' expected); record it again"
        raise InputError(f"{where}:{first_line + i}: {message}")
    page = (address >> np.uint64(12)).astype(np.int64)
    key = (page << 1) | write
    crossing = np.flatnonzero((address & np.uint64(4095)).astype(np.int64) + size > 4096)
    accesses = len(key)
    if len(crossing):
        key = np.insert(key, crossing + 1, key[crossing] + 2)
        data = np.insert(data, crossing + 1, data[crossing])
    return Piece(key, data, other, accesses, len(ends))


def _sizes(text: np.ndarray, comma: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Access sizes (1 to 3 decimal digits between comma and line end); 0 where the text is none."""
    size = np.zeros(len(comma), np.int64)
    ok = text[comma] == ord(",")
    for at in (1, 2, 3):
        there = comma + at < end
        digit = text[np.minimum(comma + at, end)].astype(np.int64) - ord("0")
        ok &= ~there | ((digit >= 0) & (digit <= 9))
        size = np.where(there, size * 10 + digit, size)
    return np.where(ok, size, 0)


def _addresses(text: np.ndarray, comma: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hexadecimal numbers of 8 to 16 digits that end before `comma`, and flags where a byte was no digit."""
    words = np.ndarray((len(text) - 7,), "V8", text, 0, (1,))  # the 8 bytes from every byte on
    low, wrong = _word_value(words[comma - 8].view(np.uint8))
    long = np.flatnonzero(digits > 8)
    if len(long):
        value, bad = _word_value(words[comma[long] - 16].view(np.uint8), _KEEP[digits[long] - 8])
        low[long] |= value << np.uint64(32)
        wrong[long] |= bad
    return low, wrong


def _word_value(text: np.ndarray, keep: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Eight digit bytes each, most significant first -> (values, flags of those with a byte that is no
    digit)."""
    digit = _HEX[text].view(">u8").astype(np.uint64)
    if keep is not None:
        digit &= keep
    wrong = (digit & np.uint64(0x8080808080808080)) != 0
    digit = (digit | digit >> np.uint64(4)) & np.uint64(0x00FF00FF00FF00FF)
    digit = (digit | digit >> np.uint64(8)) & np.uint64(0x0000FFFF0000FFFF)
    return (digit | digit >> np.uint64(16)) & np.uint64(0xFFFFFFFF), wrong
