"""Checkpoints of running searches, and the search that a tree goes on from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("tree_id", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("continues", sa.Text),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("renewed_at", sa.Double, nullable=False),
        sa.Column("lease_seconds", sa.Double, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.add_column("trees", sa.Column("continues", sa.Text))
    going_on = sa.text("continues IS NOT NULL")
    op.create_index(
        "ix_trees_continues", "trees", ["continues"], sqlite_where=going_on, postgresql_where=going_on
    )
