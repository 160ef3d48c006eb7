"""The database of the records: SQLite or PostgreSQL by URL, its transactions, its schema.

SQLite is the default (write-ahead log, synced at every commit). Nothing that the records ask is one
database's own; what differs is here, guarded by the dialect: pragmas, how a transaction begins, and
what makes an erasure reach the disk.

The schema is brought up to date when the database is opened, in one transaction, under a lock where
several may open it at once (service/migrations, by Alembic). Tables of a newer Shoal are refused.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from service.tables import metadata, schema_version

HEAD = "0004"  # the newest of service/migrations/versions
BUSY_TIMEOUT_MS = 10_000
# a server that is gone or stuck is told from a slow one after this
CONNECT_S, STATEMENT_MS = 5, 10_000
_BOUNDS: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": STATEMENT_MS,  # of a machine that has gone without a word
        "options": f"-c statement_timeout={STATEMENT_MS}",
    },
}
_UPGRADING = threading.Lock()  # Alembic runs one upgrade a process at a time
_OPENING = 0x5348_4F41_4C  # "SHOAL": the advisory lock of whoever prepares the schema


class RecordsError(RuntimeError):
    """The records cannot be opened, or refuse what was asked."""


class SchemaUnknown(RecordsError):
    """The records were written by another version of Shoal."""


class Database:
    """The database at a SQLAlchemy URL, such as `sqlite:////var/lib/shoal/records.db`.

    Tables are made when there are none, and brought up to date when they are older. May be shared
    between threads, and opened by several processes. `shown` is the URL without its password.

    Raises RecordsError (without the password) when the URL cannot be used, SchemaUnknown when the
    tables are somebody else's or of a newer Shoal.
    """

    def __init__(self, url: str) -> None:
        self._engine, self.shown = _engine(url)
        self._writer = self._engine.execution_options(shoal_begin="BEGIN IMMEDIATE")
        try:
            with self.read() as connection:
                current = _revision(connection) == HEAD
            if not current:
                with _UPGRADING, self.write() as connection:
                    _prepare_schema(connection, self.shown)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._said_plainly(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that takes the write lock at its start.

        SQLite cannot turn a reader into a writer once another has written: it fails at once, with
        no regard to the timeout. Asking at the start waits.
        """
        with self._said_plainly(), self._writer.begin() as connection:
            yield connection

    def scrub(self) -> None:
        """Have what was deleted leave the database's files.

        SQLite overwrites it at once (`secure_delete`), but its write-ahead log repeats pages until
        it is emptied. PostgreSQL keeps the old rows until they are vacuumed, and copies of them in
        its own log until that is recycled, which is its operator's.
        """
        with self._said_plainly(), self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("COMMIT")  # a checkpoint is no part of a transaction
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.exec_driver_sql("BEGIN")
            else:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.execute(text("SET statement_timeout = 0"))
                for table in metadata.sorted_tables:
                    alone.execute(text(f"VACUUM {table.name}"))
                alone.execute(text(f"SET statement_timeout = {STATEMENT_MS}"))

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise RecordsError(f"records at {self.shown}: {error.orig}") from error


@contextmanager
def ignoring_duplicates(connection: Connection) -> Iterator[None]:
    """Undo the block, and go on after it, if it breaks a unique constraint."""
    savepoint = connection.begin_nested()
    try:
        yield
    except IntegrityError:
        savepoint.rollback()
    else:
        savepoint.commit()


def insert_absent(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that passes over rows whose key is there already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def _engine(url: str) -> tuple[Engine, str]:
    """An engine, and its URL as it may be shown."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise RecordsError(
            "the URL of the records cannot be read: write sqlite:////path/records.db or "
            "postgresql://user:password@host/name"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    dialect = parsed.get_backend_name()
    if dialect not in ("sqlite", "postgresql"):
        raise RecordsError(f"records at {shown}: only sqlite and postgresql are supported")
    if dialect == "sqlite" and _in_memory(parsed):
        raise RecordsError(f"records at {shown} would be lost with the process: name a file")
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    # what the URL says of these itself stands
    bounds = {name: value for name, value in _BOUNDS[dialect].items() if name not in parsed.query}
    try:
        engine = create_engine(parsed, pool_pre_ping=dialect == "postgresql", connect_args=bounds)
    except (ImportError, NoSuchModuleError) as error:
        raise RecordsError(
            f"records at {shown} need a driver ({error}): pip install 'shoal[postgres]'"
        ) from error
    if dialect == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine, shown


def _in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:") or "mode" in url.query


def _sqlite_connect(connection: Any, _: object) -> None:
    # The driver opens transactions by its own rules; we begin ours.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # what is erased is overwritten
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("shoal_begin", "BEGIN"))


def _revision(connection: Connection) -> str | None:
    """The revision of the schema; None before migrations were kept, and where there is nothing."""
    if "alembic_version" not in inspect(connection).get_table_names():
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _prepare_schema(connection: Connection, shown: str) -> None:
    """Make the tables, or bring those there up to date if they are ours."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # a migration may take long
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_OPENING})"))
    present = set(inspect(connection).get_table_names())
    revision = _revision(connection)
    if revision == HEAD:  # another opened it meanwhile
        return
    if revision is None and schema_version.name in present:
        # before migrations: this table told the version, and there was but one
        version = connection.scalar(text("SELECT max(version) FROM schema_version"))
        revision = {1: "0001"}.get(version, f"{version}")
    elif revision is None:
        foreign = sorted(present & metadata.tables.keys())
        if foreign:
            raise SchemaUnknown(
                f"records at {shown}: there is a table {foreign[0]!r} that Shoal did not make; "
                f"give a database of its own"
            )
    _upgrade(connection, revision, shown)


def _upgrade(connection: Connection, revision: str | None, shown: str, to: str = HEAD) -> None:
    # Alembic takes a tenth of a second to import, and most openings have nothing for it to do.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None:
        if revision not in known:
            raise SchemaUnknown(
                f"records at {shown} have schema {revision}, this Shoal reads {HEAD} and older: "
                f"they were written by another version; use that one or a newer"
            )
        command.stamp(config, revision)
    command.upgrade(config, to)
