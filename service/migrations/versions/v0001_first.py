"""The tables before migrations were kept: what `schema_version` 1 stands for."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True))

    op.create_table(
        "labels",
        sa.Column("id", Id, primary_key=True),
        sa.Column("account_id", sa.String),
        sa.Column("cluster_id", sa.String),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("typology", sa.String),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint(
            "(account_id IS NULL) <> (cluster_id IS NULL)", name="labels_one_subject"
        ),
        sa.Index("labels_by_account", "account_id", "at"),
        sa.Index("labels_by_cluster", "cluster_id", "at"),
    )

    op.create_table(
        "cases",
        sa.Column("id", Id, primary_key=True),
        sa.Column("cluster_id", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("proposed_action", sa.String, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("claimed_by", sa.String),
        sa.Column("decided_action", sa.String),
        sa.Column("decided_by", sa.String),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("body", sa.JSON, nullable=False),
        sa.CheckConstraint("status IN ('open', 'claimed', 'closed')", name="cases_status"),
        sa.Index("cases_by_status", "status", "id"),
        sqlite_autoincrement=True,  # a page's cursor is an id, which must not come back
    )
    # Two sweeps may not open the same case twice.
    op.create_index(
        "cases_one_live",
        "cases",
        ["cluster_id"],
        unique=True,
        sqlite_where=sa.text("status != 'closed'"),
        postgresql_where=sa.text("status != 'closed'"),
    )

    op.create_table(
        "case_notes",
        sa.Column("id", Id, primary_key=True),
        sa.Column("case_id", Id, sa.ForeignKey("cases.id"), nullable=False, index=True),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )

    op.create_table(
        "decisions",
        sa.Column("event_id", sa.String, primary_key=True),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("cluster_id", sa.String),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("policy_version", sa.String, nullable=False),
        sa.Index("decisions_by_account", "account_id", "at"),
    )

    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
    )

    op.create_table(
        "canaries",
        sa.Column("id", Id, primary_key=True),
        sa.Column("mark", sa.String, nullable=False, unique=True),
        sa.Column("station", sa.String, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )

    op.create_table(
        "canary_hits",
        sa.Column("id", Id, primary_key=True),
        sa.Column("canary_id", Id, sa.ForeignKey("canaries.id"), nullable=False),
        sa.Column("account_id", sa.String, nullable=False),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("canary_id", "account_id"),
    )

    op.create_table(
        "audit",
        sa.Column("seq", Id, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column(
            "body", sa.Text, nullable=False
        ),  # canonical JSON: what is hashed is what is kept
        sa.Column("prev_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False),
    )

    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", Id, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name="audit_head_is_one_row"),
    )
    op.execute("INSERT INTO schema_version VALUES (1)")
    op.execute(f"INSERT INTO audit_head VALUES (1, 0, '{'0' * 64}')")
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                f"BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
            )
