"""The tables; how they came about stands in ``migrations``, and a test holds the two together.

The chain of the journal holds no words: contents lie in tables of their own, each row with a salt that only it has, and the chain
holds keyed hashes of them. When a row is erased its salt goes with it, the hash in the chain says nothing any more, and the chain
still verifies.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
LONG = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts rows in INTEGER only

calls = Table(
    "calls",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("lang", String(2), nullable=False),
    Column("status", String(10), nullable=False),  # open, done, escalated, abandoned
    Column("operator", String(80), nullable=False),
    Column("subject_key", String(64), index=True),  # keyed hash of the patient's number elsewhere
    Column("created", String(27), nullable=False, index=True),
    Column("updated", String(27), nullable=False, index=True),
)

turns = Table(
    "turns",
    metadata,
    Column("call_id", ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0
    Column("speaker", String(10), nullable=False),
    Column("text", Text, nullable=False),  # without personal data
    Column("key", String(80), nullable=False),  # the sender's own, so that what is sent twice stands once
    Column("created", String(27), nullable=False),
    UniqueConstraint("call_id", "key"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("call_id", ForeignKey("calls.id", ondelete="CASCADE"), index=True),
    Column("kind", String(20), nullable=False),  # triage, suggestion, chat
    Column("content", Text, nullable=False),  # canonical JSON of answers.NewAnswer
    Column("turns_read", Integer, nullable=False),
    Column("urgency", String(20)),
    Column("model", String(64)),
    Column("sequence", LONG, nullable=False),  # of its record in the journal
    Column("salt", LargeBinary(32), nullable=False),
    Column("created", String(27), nullable=False, index=True),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("answer_id", ForeignKey("answers.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("operator", String(80), nullable=False),
    Column("action", String(10), nullable=False),  # accepted, edited, rejected, escalated
    Column("content", Text, nullable=False),  # canonical JSON of feedback.NewFeedback, without personal data
    Column("key", String(80), nullable=False, unique=True),
    Column("sequence", LONG, nullable=False),
    Column("salt", LargeBinary(32), nullable=False),
    Column("created", String(27), nullable=False, index=True),
)

doctors = Table(
    "doctors",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("site", Text),
    Column("site_plain", Text, nullable=False),  # as names are compared
    Column("age_min", Integer),
    Column("age_max", Integer),
    Column("listed", Boolean, nullable=False),  # stands in the latest roster
)

doctor_facts = Table(  # what a doctor may have several of
    "doctor_facts",
    metadata,
    Column("doctor_id", ForeignKey("doctors.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(10), primary_key=True),  # specialty, language, mode
    Column("value", String(40), primary_key=True),
    Column("place", Integer, nullable=False),  # in the roster's order
    Index(None, "kind", "value"),
)

slots = Table(
    "slots",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("doctor_id", ForeignKey("doctors.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("starts", String(40), nullable=False),  # as the roster writes it
    Column("ends", String(40), nullable=False),
    Column("starts_utc", String(27), nullable=False),
    Column("status", String(5), nullable=False),  # free, busy: what the roster says
    Index(None, "status", "starts_utc"),
)

bookings = Table(
    "bookings",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("slot_id", ForeignKey("slots.id"), nullable=False),
    Column("call_id", ForeignKey("calls.id", ondelete="SET NULL"), index=True),
    Column("operator", String(80), nullable=False),
    Column("key", String(80), nullable=False, unique=True),
    Column("created", String(27), nullable=False),
    Column("released", String(27)),
    Index(
        "uq_bookings_active",
        "slot_id",
        unique=True,
        sqlite_where=text("released IS NULL"),
        postgresql_where=text("released IS NULL"),
    ),
)

rosters = Table(
    "rosters",
    metadata,
    Column("number", LONG, primary_key=True, autoincrement=True),
    Column("sha256", String(64), nullable=False),  # of the file: the version that answers name
    Column("doctors", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("created", String(27), nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("sequence", LONG, primary_key=True, autoincrement=False),  # from 1, without gaps
    Column("created", String(27), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

journal_head = Table(  # one row: where the chain ends, and the lock that keeps its writers apart
    "journal_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", LONG, nullable=False),
    Column("hash", String(64), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),  # the part of a key that may be seen
    Column("role", String(10), nullable=False),  # operator, supervisor
    Column("name", String(80), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", String(27), nullable=False),
    Column("revoked", String(27)),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key_id", ForeignKey("keys.id", ondelete="CASCADE"), nullable=False),
    Column("created", String(27), nullable=False),
    Column("expires", String(27), nullable=False, index=True),
)

models = Table(  # each time that a model was taken into service; the last row is in service
    "models",
    metadata,
    Column("number", LONG, primary_key=True, autoincrement=True),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("gate", String(10), nullable=False),  # passed, overridden
    Column("back_to", LONG),  # the number it returns to, when this was a step back
    Column("created", String(27), nullable=False),
)
