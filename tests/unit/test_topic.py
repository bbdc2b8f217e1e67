"""Keyed records go where Kafka's clients would send them, one by one or by the column."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmesh.log.topic import murmur2, partition_for, partitions_for

# Of Kafka's own UtilsTest.testMurmur2.
VECTORS = {
    "21": -973932308,
    "foobar": -790332482,
    "abc": 479470107,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
}


@pytest.mark.parametrize(("key", "expected"), VECTORS.items())
def test_given_kafkas_vectors_then_the_hash_is_kafkas(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected
    assert partition_for(key, 7) == (expected & 0x7FFFFFFF) % 7


@given(st.lists(st.text(max_size=20)), st.integers(1, 50))
def test_given_any_keys_then_the_column_goes_where_each_key_goes(keys: list[str], partitions: int) -> None:
    found = partitions_for(pa.array(keys, pa.string()), partitions)
    assert found.dtype == "int32"
    assert found.tolist() == [partition_for(key, partitions) for key in keys]


@given(st.lists(st.text(max_size=9), min_size=1), st.data())
def test_given_a_slice_of_a_column_then_only_its_keys_count(keys: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(keys)))
    sliced = pa.array(keys, pa.string()).slice(start)
    assert partitions_for(sliced, 5).tolist() == [partition_for(key, 5) for key in keys[start:]]


def test_given_large_strings_then_they_hash_alike() -> None:
    keys = pa.array(list(VECTORS), pa.large_string())
    assert partitions_for(keys, 13).tolist() == [partition_for(key, 13) for key in VECTORS]
