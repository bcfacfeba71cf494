"""The first schema: trees, feedback, consumers, idempotency, releases and activations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    counter = op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last", big, nullable=False),
    )
    op.bulk_insert(counter, [{"id": 1, "last": 0}])
    op.create_table(
        "trees",
        sa.Column("seq", big, primary_key=True, autoincrement=False),
        sa.Column("tree_id", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("n_nodes", big, nullable=False),
        sa.Column("n_tokens", big, nullable=False),
        sa.Column("best_value", sa.Double),
        sa.Column("outcome", sa.Double),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("train", sa.Boolean, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("answer_node", big),
        sa.Column("verdict_seq", big),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_trees_key_id_seq", "trees", ["key_id", "seq"])
    op.create_index("ix_trees_created_at", "trees", ["created_at"])
    op.create_table(
        "feedback",
        sa.Column("seq", big, primary_key=True, autoincrement=False),
        sa.Column("outcome_id", sa.Text, nullable=False, unique=True),
        sa.Column("tree_id", sa.Text, nullable=False),
        sa.Column("node", big),
        sa.Column("answer", sa.Text),
        sa.Column("outcome", sa.Double, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("train", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("ix_feedback_tree_id", "feedback", ["tree_id"])
    op.create_table(
        "consumers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("cursor", big, nullable=False),
        sa.Column("version", big, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_expires", sa.Double),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("search_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])
    op.create_table(
        "releases",
        sa.Column("release_id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.create_table(
        "activations",
        sa.Column("id", big, primary_key=True, autoincrement=False),
        sa.Column("release_id", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("activated_at", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
    )
