"""The first tables of the desk."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ACTIVE = sa.text("released IS NULL")
START = "0" * 64  # what the first record names as the one before it


def upgrade() -> None:
    """Make them; what refers to another comes after it."""
    _calls()
    _doctors()
    _journal()
    _journal_head()
    _keys()
    _models()
    _rosters()
    _answers()
    _doctor_facts()
    _sessions()
    _slots()
    _turns()
    _bookings()
    _feedback()
    op.execute(f"INSERT INTO journal_head (id, sequence, hash) VALUES (1, 0, '{START}')")


def _calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("lang", sa.String(length=2), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("operator", sa.String(length=80), nullable=False),
        sa.Column("subject_key", sa.String(length=64), nullable=True),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("updated", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    op.create_index(op.f("ix_calls_created"), "calls", ["created"], unique=False)
    op.create_index(op.f("ix_calls_subject_key"), "calls", ["subject_key"], unique=False)
    op.create_index(op.f("ix_calls_updated"), "calls", ["updated"], unique=False)


def _doctors() -> None:
    op.create_table(
        "doctors",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("site_plain", sa.Text(), nullable=False),
        sa.Column("age_min", sa.Integer(), nullable=True),
        sa.Column("age_max", sa.Integer(), nullable=True),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_doctors")),
    )


def _journal() -> None:
    op.create_table(
        "journal",
        sa.Column("sequence", LONG, autoincrement=False, nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_journal")),
    )
    op.create_index(op.f("ix_journal_created"), "journal", ["created"], unique=False)


def _journal_head() -> None:
    op.create_table(
        "journal_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", LONG, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_head")),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("revoked", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("number", LONG, autoincrement=True, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("gate", sa.String(length=10), nullable=False),
        sa.Column("back_to", LONG, nullable=True),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_models")),
    )


def _rosters() -> None:
    op.create_table(
        "rosters",
        sa.Column("number", LONG, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("doctors", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rosters")),
    )


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("call_id", sa.String(length=40), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("turns_read", sa.Integer(), nullable=False),
        sa.Column("urgency", sa.String(length=20), nullable=True),
        sa.Column("model", sa.String(length=64), nullable=True),
        sa.Column("sequence", LONG, nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_answers_call_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_call_id"), "answers", ["call_id"], unique=False)
    op.create_index(op.f("ix_answers_created"), "answers", ["created"], unique=False)


def _doctor_facts() -> None:
    op.create_table(
        "doctor_facts",
        sa.Column("doctor_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("value", sa.String(length=40), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["doctor_id"], ["doctors.id"], name=op.f("fk_doctor_facts_doctor_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("doctor_id", "kind", "value", name=op.f("pk_doctor_facts")),
    )
    op.create_index(op.f("ix_doctor_facts_kind_value"), "doctor_facts", ["kind", "value"], unique=False)


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("expires", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_sessions_key_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_expires"), "sessions", ["expires"], unique=False)


def _slots() -> None:
    op.create_table(
        "slots",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("doctor_id", sa.String(length=200), nullable=False),
        sa.Column("starts", sa.String(length=40), nullable=False),
        sa.Column("ends", sa.String(length=40), nullable=False),
        sa.Column("starts_utc", sa.String(length=27), nullable=False),
        sa.Column("status", sa.String(length=5), nullable=False),
        sa.ForeignKeyConstraint(["doctor_id"], ["doctors.id"], name=op.f("fk_slots_doctor_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slots")),
    )
    op.create_index(op.f("ix_slots_doctor_id"), "slots", ["doctor_id"], unique=False)
    op.create_index(op.f("ix_slots_status_starts_utc"), "slots", ["status", "starts_utc"], unique=False)


def _turns() -> None:
    op.create_table(
        "turns",
        sa.Column("call_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("speaker", sa.String(length=10), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_turns_call_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "number", name=op.f("pk_turns")),
        sa.UniqueConstraint("call_id", "key", name=op.f("uq_turns_call_id_key")),
    )


def _bookings() -> None:
    op.create_table(
        "bookings",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("slot_id", sa.String(length=200), nullable=False),
        sa.Column("call_id", sa.String(length=40), nullable=True),
        sa.Column("operator", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.Column("released", sa.String(length=27), nullable=True),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_bookings_call_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["slot_id"], ["slots.id"], name=op.f("fk_bookings_slot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookings")),
        sa.UniqueConstraint("key", name=op.f("uq_bookings_key")),
    )
    op.create_index(op.f("ix_bookings_call_id"), "bookings", ["call_id"], unique=False)
    op.create_index("uq_bookings_active", "bookings", ["slot_id"], unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE)


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("answer_id", sa.String(length=40), nullable=False),
        sa.Column("operator", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=10), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("sequence", LONG, nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name=op.f("fk_feedback_answer_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("key", name=op.f("uq_feedback_key")),
    )
    op.create_index(op.f("ix_feedback_answer_id"), "feedback", ["answer_id"], unique=False)
    op.create_index(op.f("ix_feedback_created"), "feedback", ["created"], unique=False)
    # ### end Alembic commands ###
