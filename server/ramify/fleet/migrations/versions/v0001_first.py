"""The first schema: the fleet, its epochs and its replicas."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fleet",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("seen", sa.Double, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.CheckConstraint("id = 1", name="one_fleet"),
    )
    op.create_table(
        "epochs",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("grace", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deadline", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("error", sa.Text),
    )
    op.create_index(
        "one_activation",
        "epochs",
        [sa.text("(true)")],
        unique=True,
        postgresql_where=sa.text("state IN ('preparing', 'committing', 'going_back')"),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("lease", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("loaded", sa.BigInteger, nullable=False),
        sa.Column("prepared", sa.BigInteger, nullable=False),
        sa.Column("serving", sa.BigInteger, nullable=False),
        sa.Column("work", sa.Text),
        sa.Column("failing", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("evicted", sa.Boolean, nullable=False),
        sa.Column("leaving", sa.Boolean, nullable=False),
        sa.Column("report", sa.JSON(none_as_null=True)),
    )
