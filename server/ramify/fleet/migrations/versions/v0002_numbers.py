"""The number of a replica, and the address of its admin listener."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replicas", sa.Column("number", sa.Integer))
    op.add_column("replicas", sa.Column("admin", sa.Text))
