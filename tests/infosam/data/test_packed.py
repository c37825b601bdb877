from __future__ import annotations

import pickle

import pytest

from infosam.data.packed import PackedPairs
from infosam.data.pairs import Pair

PAIRS = [
    Pair(image_name="/a/ä\n1.png", mask_name="/m/1.png", split="test", row="caf\udce9.csv:2", group="p 7"),
    Pair(image_name="/a/2.png", mask_name="/m/2.png", split="train", row="list.csv:3", mask_content=bytes),
    Pair(image_name="", mask_name="/m/3.png", split="val", row="", image_content=bytes),
]


def test_pairs_are_given_back_as_they_were() -> None:
    packed = PackedPairs(iter(PAIRS))
    assert len(packed) == 3
    assert [*packed] == PAIRS
    assert [packed[number] for number in range(3)] == PAIRS
    assert packed[1:] == PAIRS[1:]
    assert packed[-1] == PAIRS[2]
    with pytest.raises(IndexError):
        packed[3]


def test_equal_pairs_make_equal_packs_here_and_in_another_process() -> None:
    packed = PackedPairs(PAIRS)
    assert packed == PackedPairs(PAIRS) == pickle.loads(pickle.dumps(packed))
    assert packed != PackedPairs(PAIRS[:2])
    assert not PackedPairs([])
