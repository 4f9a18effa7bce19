"""remote nodes, and what queries of the network search by

Revision: 0006, after: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PREFIXES = (
    ("ix_patient_name_search", "patient", "name_search"),
    ("ix_patient_patient_id", "patient", "patient_id"),
    ("ix_study_accession_number", "study", "accession_number"),
)
"""Indexes by which PostgreSQL shall find the beginning of a text in every collation."""


def upgrade() -> None:
    op.create_table(
        "remote_node",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_remote_node")),
    )
    op.create_index(op.f("ix_remote_node_ae_title"), "remote_node", ["ae_title"])
    op.add_column("patient", sa.Column("name_search_2", sa.Text(), nullable=True))
    op.add_column("patient", sa.Column("name_search_3", sa.Text(), nullable=True))
    _fill_groups()
    for column in ("name_search_2", "name_search_3"):
        op.create_index(op.f(f"ix_patient_{column}"), "patient", [column], postgresql_ops={column: "text_pattern_ops"})
    if op.get_bind().dialect.name == "postgresql":
        for name, table, column in _PREFIXES:
            op.drop_index(name, table_name=table)
            op.create_index(name, table, [column], postgresql_ops={column: "text_pattern_ops"})


def _fill_groups() -> None:
    """The second and third component group of the names that have them."""
    patient = sa.table(
        "patient", sa.column("id"), sa.column("name_search"), sa.column("name_search_2"), sa.column("name_search_3")
    )
    connection = op.get_bind()
    rows = connection.execute(sa.select(patient.c.id, patient.c.name_search).where(patient.c.name_search.like("=%=_%")))
    groups = {row_id: [*text.strip("=").split("="), None][1:3] for row_id, text in rows}
    if groups:
        statement = sa.update(patient).where(patient.c.id == sa.bindparam("row"))
        connection.execute(
            statement.values(name_search_2=sa.bindparam("second"), name_search_3=sa.bindparam("third")),
            [{"row": row_id, "second": second, "third": third} for row_id, (second, third) in groups.items()],
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name, table, column in _PREFIXES:
            op.drop_index(name, table_name=table)
            op.create_index(name, table, [column])
    op.drop_index(op.f("ix_patient_name_search_3"), table_name="patient")
    op.drop_index(op.f("ix_patient_name_search_2"), table_name="patient")
    for column in ("name_search_3", "name_search_2"):  # as such: a table that others reference cannot be made anew
        op.execute(f"ALTER TABLE patient DROP COLUMN {column}")
    op.drop_index(op.f("ix_remote_node_ae_title"), table_name="remote_node")
    op.drop_table("remote_node")
