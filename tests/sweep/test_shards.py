"""Shards and blocks share candidates out: each in exactly one, about as many in each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxswap.errors import InputError
from jaxswap.sweep.run import BLOCK, blocks_of
from jaxswap.sweep.shards import WHOLE, Shard, parse_shard


@given(st.integers(1, 500), st.data())
def test_shards_are_a_division(candidates: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, candidates))
    shares = [Shard(number, count).rows(candidates) for number in range(1, count + 1)]
    assert sorted(row for share in shares for row in share) == list(range(candidates))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 5000))
def test_blocks_are_a_division(count: int) -> None:
    blocks = blocks_of(count, BLOCK)
    assert [row for block in blocks for row in block] == list(range(count))
    assert len(blocks[0]) <= BLOCK
    assert {len(block) for block in blocks[:-1]} <= {len(blocks[0])}
    # lanes that are replayed for nothing, to fill the last block
    assert len(blocks) * len(blocks[0]) - count < len(blocks[0]) // 2 + len(blocks)


def test_whole() -> None:
    assert list(WHOLE.rows(3)) == [0, 1, 2]
    assert parse_shard(str(Shard(2, 3))) == Shard(2, 3)


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "0/2", "3/2", "-1/2", "1/2/3", "1.0/2", "a/b", "1/0", "٣/٤", "1/2\n"]
)
def test_no_shard(text: str) -> None:
    with pytest.raises(InputError, match="--shard "):
        parse_shard(text)
