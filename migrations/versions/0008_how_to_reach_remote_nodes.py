"""how to reach remote nodes: the way to retrieve from them, and TLS

Revision: 0008, after: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("remote_node", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retrieve", sa.String(4), nullable=False, server_default="move"))
        batch_op.add_column(sa.Column("tls", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("remote_node", schema=None) as batch_op:
        batch_op.alter_column("retrieve", server_default=None)
        batch_op.alter_column("tls", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("remote_node", schema=None) as batch_op:
        batch_op.drop_column("tls")
        batch_op.drop_column("retrieve")
