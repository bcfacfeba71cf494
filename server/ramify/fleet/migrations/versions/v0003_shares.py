"""The shares of API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("key_tokens", sa.BigInteger))
    op.add_column("replicas", sa.Column("demands", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("replicas", sa.Column("shares", sa.JSON(none_as_null=True)))
    op.alter_column("replicas", "demands", server_default=None)
