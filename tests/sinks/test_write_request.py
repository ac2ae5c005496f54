"""What goes over the wire, read back by libraries that are not ours: Protocol Buffers, Snappy."""

from __future__ import annotations

import random
import struct

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sinks.snappy import Packer, varint
from agent.sinks.write_request import add_series, end, label, sample, zeros
from tests.lab.remote_write import decoded


def packed(pieces: list[bytes]) -> bytes:
    packer = Packer()
    for piece in pieces:
        packer.add(piece)
    assert packer.size == sum(map(len, pieces))
    return packer.finish()


def unpacked(block: bytes) -> bytes:
    return bytes(cramjam.snappy.decompress_raw(block))


@given(st.lists(st.binary(max_size=40), max_size=8).flatmap(lambda some: st.lists(st.sampled_from(some or [b""]))))
def test_what_is_packed_is_unpacked_whatever_repeats(pieces: list[bytes]) -> None:
    assert unpacked(packed(pieces)) == b"".join(pieces)


@pytest.mark.parametrize("length", [0, 1, 59, 60, 61, 255, 256, 257, 65535, 65536, 65537, 70_000, 2**24 + 1])
def test_literals_and_copies_of_every_length(length: int) -> None:
    """Lengths at which the format changes how a length is written."""
    piece = random.Random(length).randbytes(length)
    assert unpacked(packed([piece])) == piece
    assert unpacked(packed([piece, b"between", piece])) == piece + b"between" + piece


@pytest.mark.parametrize("gap", [65_530, 65_531, 65_532, 65_533, 65_534, 65_535, 65_536, 100_000])
def test_a_piece_is_found_as_far_back_as_a_reference_reaches(gap: int) -> None:
    piece, between = b"a label, as it comes again and again", random.Random(gap).randbytes(gap)
    pieces = [piece, between, piece, piece]
    block = packed(pieces)
    assert unpacked(block) == b"".join(pieces)
    assert len(block) < gap + 2 * len(piece) + 20


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_varints_are_those_of_protocol_buffers(number: int) -> None:
    octets = varint(number)
    assert sum((octet & 0x7F) << 7 * place for place, octet in enumerate(octets)) == number
    assert [octet >> 7 for octet in octets] == [1] * (len(octets) - 1) + [0]


TEXT = st.text(max_size=200)
TIMES = st.integers(min_value=1, max_value=2**62)


@given(
    st.dictionaries(
        st.dictionaries(TEXT.filter(bool), TEXT, min_size=1, max_size=5).map(
            lambda labels: tuple(sorted(labels.items()))
        ),
        st.lists(st.tuples(st.floats(allow_nan=False), TIMES), max_size=4),
        max_size=6,
    )
)
def test_series_are_read_back_as_they_were(
    written: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]],
) -> None:
    packer = Packer()
    for labels, samples in written.items():
        pieces = [piece for value, at in samples for piece in sample(value, at)]
        add_series(packer, [label(*pair) for pair in labels], pieces)

    read = decoded(packer.finish())

    assert {labels: [(one.value, one.timestamp_ms) for one in samples] for labels, samples in read.items()} == written
    signs = [struct.pack("<d", value) for samples in written.values() for value, _ in samples]
    assert [struct.pack("<d", one.value) for samples in read.values() for one in samples] == signs


@given(st.integers(min_value=1, max_value=1000), st.integers(min_value=10_000, max_value=2**62))
def test_zeros_are_a_millisecond_apart_and_come_before_the_end(number: int, until_ms: int) -> None:
    packer = Packer()
    add_series(packer, [label("__name__", "x")], [zeros(number, until_ms), *end(until_ms + 1)])

    ((_, samples),) = decoded(packer.finish()).items()

    assert [one.timestamp_ms for one in samples[:-1]] == list(range(until_ms - number + 1, until_ms + 1))
    assert {one.value for one in samples[:-1]} == {0.0}
    assert samples[-1].stale


def test_text_that_is_no_unicode_does_not_keep_the_rest_from_being_sent() -> None:
    """A name from the environment may hold bytes that are no UTF-8: Python has them as surrogates."""
    packer = Packer()
    add_series(packer, [label("__name__", "x"), label("dag_id", "a\udcffb")], sample(1.0, 1))
    ((labels, _),) = decoded(packer.finish()).items()
    assert dict(labels)["dag_id"] == "a?b"


def test_what_repeats_costs_next_to_nothing() -> None:
    """Four hundred series of one pod: what they have in common is written once."""
    common = [label(name, "a value as long as a pod's name usually is") for name in ("dag_id", "job", "pod", "task_id")]
    packer = Packer()
    beginning = zeros(100, 1_795_000_000_000)
    for number in range(400):
        add_series(packer, [label("__name__", f"m{number}"), *common], [beginning, *sample(1.0, 1_795_000_003_000)])
    assert packer.size > 400_000
    assert len(packer.finish()) < packer.size / 8
