from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ramify.search.tree import Tree
from ramify.treelog.errors import CorruptTree, LogError
from ramify.treelog.records import parse_json
from ramify.treelog.rows import MAX_BODY, columns_of, compress, decompress, entry_of, row_of
from ramify.treelog.schema import plain
from treelog_trees import make_tree, trees


@given(tree=trees())
def test_a_row_gives_its_tree_back_and_its_columns_are_the_trees(tree: Tree) -> None:
    row = row_of(tree, "alice") | {"seq": 1}
    entry = entry_of(row)
    assert entry.tree() == tree
    assert {name: row[name] for name in columns_of(tree)} == columns_of(entry.tree())


@given(st.text(st.characters()))
def test_plain_text_keeps_its_length_and_all_that_sql_can_hold(text: str) -> None:
    shown = plain(text)
    shown.encode()
    assert len(shown) == len(text)
    pairs = zip(text, shown, strict=True)
    assert all(a == b or (b == "\ufffd" and (a == "\0" or "\ud800" <= a <= "\udfff")) for a, b in pairs)


@given(st.binary())
def test_what_is_compressed_decompresses(body: bytes) -> None:
    assert decompress(compress(body)) == body


@given(st.data())
def test_any_changed_bit_of_a_body_is_noticed(data: st.DataObject) -> None:
    row = row_of(make_tree(id="tree_1"), "") | {"seq": 1}
    body = bytearray(row["body"])
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    body[bit // 8] ^= 1 << bit % 8
    try:
        entry = entry_of(row | {"body": bytes(body)})
    except CorruptTree:
        return
    assert entry == entry_of(row)  # zstd has bits that mean nothing


def test_a_body_that_claims_to_be_huge_is_not_unpacked() -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(2**20)))
    honest = zstandard.get_frame_parameters(bytes(frame)).content_size.to_bytes(4, "little")
    at = bytes(frame).index(honest)
    frame[at : at + 4] = (MAX_BODY + 1).to_bytes(4, "little")
    with pytest.raises(ValueError, match=f"claims {MAX_BODY + 1} bytes"):
        decompress(bytes(frame))


def test_a_running_search_is_not_logged() -> None:
    with pytest.raises(LogError, match="still running"):
        row_of(make_tree(status="running"), "")


@pytest.mark.parametrize(
    "text", ['{"a":[1}', '{"a":[1[2]}', '{"a":[1],}', '{"a":1{"b":2}', ',"a":1}', '{"a":[1]]}']
)
def test_broken_json_is_refused_although_it_is_read_in_pieces(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
