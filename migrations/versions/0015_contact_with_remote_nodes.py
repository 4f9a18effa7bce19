"""When a remote node last answered us, and what it said

Revision: 0015, after: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.models_base

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("remote_node", schema=None) as batch_op:
        batch_op.add_column(sa.Column("contact_at", store.models_base.UtcDateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("contact_ok", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("contact_words", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("remote_node", schema=None) as batch_op:
        batch_op.drop_column("contact_words")
        batch_op.drop_column("contact_ok")
        batch_op.drop_column("contact_at")
