"""The API key behind a lease; a tree's chosen answer and the latest verdict on it."""

import json

import sqlalchemy as sa
import zstandard
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("consumers", sa.Column("key_id", sa.String, nullable=False, server_default=""))
    op.add_column("trees", sa.Column("answer_node", big))
    op.add_column("trees", sa.Column("verdict_seq", big))
    conn = op.get_bind()
    seqs = conn.execute(sa.text("SELECT seq FROM trees")).scalars().all()
    for seq in seqs:
        body = conn.execute(sa.text("SELECT body FROM trees WHERE seq = :seq"), {"seq": seq}).scalar_one()
        conn.execute(
            sa.text("UPDATE trees SET answer_node = :node WHERE seq = :seq"),
            {"node": _answer(body), "seq": seq},
        )
    conn.execute(
        sa.text(
            "UPDATE trees SET verdict_seq = (SELECT max(seq) FROM outcomes"
            " WHERE outcomes.tree_id = trees.tree_id AND outcomes.node = trees.answer_node)"
        )
    )


def _answer(body: bytes) -> int | None:
    """The node of the chosen answer; none if the row is damaged, which `verify` says."""
    try:
        answer = json.loads(zstandard.ZstdDecompressor().decompress(body))["answer"]
        return None if answer is None else int(answer["node"])
    except (zstandard.ZstdError, ValueError, KeyError, TypeError):
        return None
