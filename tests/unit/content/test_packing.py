"""Packs bodies, and refuses to unpack other bytes."""

import tracemalloc
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import ContentTooLargeError, InvalidValueError
from ragcrawl_dynamo._content.packing import ContentError, Manifest, pack, unpack
from ragcrawl_dynamo.models import CONTENT_FIELDS
from tests.support import factories
from tests.support.factories import make_version

MB = 1024 * 1024


def packed(version: Any) -> tuple[Manifest, bytes]:
    return pack(version, level=3, max_bytes=100 * MB)


@given(factories.versions)
def test_pack_and_unpack_round_trip(version: Any) -> None:
    fields = unpack(*packed(version), max_bytes=100 * MB)
    assert fields == {name: getattr(version, name) for name in CONTENT_FIELDS}


@given(factories.versions)
def test_manifest_round_trip(version: Any) -> None:
    manifest = replace(packed(version)[0], parts=3, location="v#s#0#")
    assert Manifest.from_attribute(manifest.to_attribute()) == manifest


def test_manifest_of_a_body_in_the_bucket_names_its_object() -> None:
    manifest = Manifest(5, 3, bytes(32), parts=1, object_key="bodies/1")
    attribute: Any = manifest.to_attribute()
    assert attribute["M"]["object_key"] == {"S": "bodies/1"}
    assert Manifest.from_attribute(attribute) == manifest
    of_parts: Any = replace(manifest, object_key=None).to_attribute()
    assert "object_key" not in of_parts["M"]
    assert "place" not in of_parts["M"]


def test_pack_and_unpack_round_trip_of_several_lines_and_of_many_megabytes() -> None:
    version = make_version(markdown="a\nb\n" * MB, plain_text="\n")
    fields = unpack(*packed(version), max_bytes=100 * MB)
    assert (fields["markdown"], fields["plain_text"]) == (version.markdown, "\n")


@pytest.mark.parametrize(("size", "level", "used"), [(MB, 19, 19), (MB + 1, 19, 9), (MB + 1, 3, 3)])
def test_pack_lowers_the_level_of_a_large_body(
    size: int, level: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []
    real_compressor = zstandard.ZstdCompressor

    def compressor(*, level: int) -> zstandard.ZstdCompressor:
        levels.append(level)
        return real_compressor(level=1)

    monkeypatch.setattr("ragcrawl_dynamo._content.packing.zstandard.ZstdCompressor", compressor)
    # The header has the sizes of the fields: as many digits in both.
    other_bytes = pack(make_version(markdown="x" * MB), level=1, max_bytes=2 * MB)[0].raw_bytes - MB
    levels.clear()
    manifest, _ = pack(make_version(markdown="x" * (size - other_bytes)), level=level, max_bytes=2 * MB)
    assert manifest.raw_bytes == size
    assert levels == [used]


def test_pack_compresses_similar_texts_together() -> None:
    text = factories.dense_text(30)
    alone, both = packed(make_version(markdown=text)), packed(make_version(markdown=text, plain_text=text))
    assert both[0].stored_bytes < 1.01 * alone[0].stored_bytes


@pytest.mark.parametrize("field", ["markdown", "html", "plain_text"])
def test_pack_refuses_a_lone_surrogate_by_field_and_position(field: str) -> None:
    version = make_version(**{field: "ab"})
    object.__setattr__(version, field, "ab\ud800")
    with pytest.raises(InvalidValueError, match=rf"PageVersion\.{field}: .*surrogate at position 2"):
        packed(version)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800"])
def test_pack_refuses_a_list_that_is_not_json_by_field(bad: Any) -> None:
    version = make_version()
    version.headings_outline.append({"level": bad})
    with pytest.raises(InvalidValueError, match=r"PageVersion\.headings_outline"):
        packed(version)


def test_pack_refuses_a_body_over_the_limit_with_both_sizes() -> None:
    with pytest.raises(ContentTooLargeError, match=r"max_content_bytes is 1,000: raise it") as caught:
        pack(make_version(html="x" * 1000), level=3, max_bytes=1000)
    assert caught.value.size > 1000
    assert caught.value.limit == 1000


def test_pack_takes_a_body_of_exactly_the_limit() -> None:
    version = make_version(html="x" * 1000)
    manifest, _ = packed(version)
    assert pack(version, level=3, max_bytes=manifest.raw_bytes)[0] == manifest
    with pytest.raises(ContentTooLargeError):
        pack(version, level=3, max_bytes=manifest.raw_bytes - 1)


def manifest_of(raw: bytes, data: bytes, **changes: Any) -> Manifest:
    return replace(Manifest(len(raw), len(data), sha256(raw).digest()), **changes)


def test_unpack_notices_every_changed_byte() -> None:
    manifest, data = packed(make_version(markdown="hello " * 50))
    for i in range(len(data)):
        damaged = data[:i] + bytes([data[i] ^ 0x55]) + data[i + 1 :]
        with pytest.raises(ContentError):
            unpack(manifest, damaged, max_bytes=MB)


@given(st.binary(max_size=200))
def test_unpack_refuses_any_other_bytes(data: bytes) -> None:
    with pytest.raises(ContentError):
        unpack(Manifest(100, len(data), bytes(32)), data, max_bytes=MB)


def test_unpack_notices_a_wrong_declared_size() -> None:
    manifest, data = packed(make_version(markdown="x" * 1000))
    for size in (0, 1, manifest.raw_bytes - 1):
        with pytest.raises(ContentError, match=rf"has more than {size:,} bytes after decompression"):
            unpack(replace(manifest, raw_bytes=size), data, max_bytes=MB)
    for size in (manifest.raw_bytes + 1, MB):
        with pytest.raises(ContentError, match=rf"has fewer than {size:,} bytes after decompression"):
            unpack(replace(manifest, raw_bytes=size), data, max_bytes=MB)
    with pytest.raises(ContentError, match="1,048,577 bytes, more than max_content_bytes = 1,048,576"):
        unpack(replace(manifest, raw_bytes=MB + 1), data, max_bytes=MB)
    with pytest.raises(ContentError, match="bytes, and 5 were saved"):
        unpack(replace(manifest, stored_bytes=5), data, max_bytes=MB)


def test_unpack_of_other_content_of_the_same_size_says_that_its_checksum_differs() -> None:
    raw = b'{"markdown": 1}\na'
    data = zstandard.compress(raw)
    assert unpack(manifest_of(raw, data), data, max_bytes=MB) == {"markdown": "a"}
    with pytest.raises(ContentError, match=r"^its checksum is not the one that was saved with it"):
        unpack(manifest_of(raw, data, digest=bytes(32)), data, max_bytes=MB)


def test_unpack_says_why_content_cannot_be_read() -> None:
    with pytest.raises(ContentError, match="cannot be decompressed: "):
        unpack(Manifest(4, 4, bytes(32)), b"data", max_bytes=MB)
    raw = b"no line"
    data = zstandard.compress(raw)
    with pytest.raises(ContentError, match="its form is unknown: ValueError"):
        unpack(manifest_of(raw, data), data, max_bytes=MB)


def bomb(size: int, *, declare: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=declare).compressobj(
        size=size if declare else -1
    )
    zeros = bytes(MB)
    return b"".join([*(compressor.compress(zeros) for _ in range(size // MB)), compressor.flush()])


@pytest.mark.parametrize("declare", [True, False], ids=["size in the frame", "no size in the frame"])
def test_unpack_of_a_decompression_bomb_takes_no_memory(declare: bool) -> None:
    data = bomb(1024 * MB, declare=declare)
    assert len(data) < MB
    manifest = Manifest(raw_bytes=MB, stored_bytes=len(data), digest=bytes(32))
    tracemalloc.start()
    try:
        with pytest.raises(ContentError, match="more than 1,048,576 bytes after decompression"):
            unpack(manifest, data, max_bytes=64 * MB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no line",
        b"[]\n",
        b'{"markdown": 5}\nab',
        b'{"markdown": -1}\nab',
        b'{"markdown": 1}\n\xff',
        b"\xff\n",
    ],
)
def test_unpack_of_another_form_is_refused_or_read_as_far_as_it_goes(raw: bytes) -> None:
    data = zstandard.compress(raw)
    try:
        fields = unpack(manifest_of(raw, data), data, max_bytes=MB)
    except ContentError:
        return
    assert fields == {"markdown": "ab"[: len(fields["markdown"])]}


@pytest.mark.parametrize(
    "attribute",
    [{}, {"S": "x"}, {"M": {}}, {"M": {"codec": {"S": "zstd"}, "format": {"N": "one"}}}],
)
def test_manifest_that_is_damaged_is_refused(attribute: Any) -> None:
    with pytest.raises(ContentError, match="manifest is damaged"):
        Manifest.from_attribute(attribute)


def test_manifest_of_an_unknown_codec_names_the_codec() -> None:
    attribute: Any = packed(make_version())[0].to_attribute()
    attribute["M"]["codec"] = {"S": "brotli"}
    with pytest.raises(ContentError, match="its codec brotli 1 is unknown here"):
        Manifest.from_attribute(attribute)
