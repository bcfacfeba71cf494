"""Why a release became the active one: asked for, rolled back to, or gone back to by the server itself."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("activations", sa.Column("kind", sa.String, nullable=False, server_default="activate"))
