"""Bodies may lie in object stores, which the rows name."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "object_stores",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("url", sa.Text, nullable=False, unique=True),
        sa.Column("mark", sa.String(32), nullable=False),
    )
    # No row is rewritten, however large the log: those that are there have their bodies, and null here.
    op.add_column("trees", sa.Column("store", sa.Integer))
    op.add_column("trees", sa.Column("size", big))
    in_a_store = sa.text("store IS NOT NULL")
    op.create_index(
        "ix_trees_sha256", "trees", ["sha256"], sqlite_where=in_a_store, postgresql_where=in_a_store
    )
