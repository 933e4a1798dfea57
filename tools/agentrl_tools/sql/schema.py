"""What a database holds, read by SQLAlchemy, as text for a model."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.errors import MissingExtraError


@dataclass(frozen=True)
class ForeignKey:
    """A column that names a row of another table."""

    column: str
    table: str
    other: str


@dataclass(frozen=True)
class Table:
    """A table or view.

    Attributes:
        columns: (name, type) in order.
        key: the columns of its primary key.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()


def read_schema(url: str) -> tuple[Table, ...]:
    """Read tables and views of a database's default schema, by name.

    Args:
        url: of SQLAlchemy, such as "sqlite:///music.sqlite"; whoever writes it is trusted.

    Raises:
        MissingExtraError: SQLAlchemy is not installed.
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read.
    """
    try:
        from sqlalchemy import Inspector, NullPool, create_engine, inspect
    except ImportError:
        raise MissingExtraError("Reading a schema", "sql") from None
    engine = create_engine(url, poolclass=NullPool)
    inspector: Inspector = inspect(engine)
    names = sorted([*inspector.get_table_names(), *inspector.get_view_names()])
    return tuple(_table(inspector, name) for name in names)


def _table(inspector: object, name: str) -> Table:
    from sqlalchemy import Inspector

    if not isinstance(inspector, Inspector):
        raise TypeError(f"an Inspector of SQLAlchemy is needed; got {inspector!r}.")
    links = [
        ForeignKey(column, str(found["referred_table"]), other)
        for found in inspector.get_foreign_keys(name)
        for column, other in zip(found["constrained_columns"], found["referred_columns"], strict=False)
    ]
    return Table(
        name,
        tuple((str(column["name"]), str(column["type"])) for column in inspector.get_columns(name)),
        tuple(inspector.get_pk_constraint(name).get("constrained_columns") or ()),
        tuple(sorted(links, key=lambda link: (link.column, link.table))),
    )


def schema_text(tables: tuple[Table, ...]) -> str:
    """Write a schema, one table per line.

    >>> album = Table(
    ...     "album",
    ...     (("id", "INTEGER"), ("artist_id", "INTEGER")),
    ...     ("id",),
    ...     (ForeignKey("artist_id", "artist", "id"),),
    ... )
    >>> print(schema_text((album,)))
    album(id INTEGER, artist_id INTEGER), primary key (id), artist_id references artist(id)
    """
    return "\n".join(_line(table) for table in tables)


def _line(table: Table) -> str:
    parts = [f"{table.name}({', '.join(f'{name} {kind}' for name, kind in table.columns)})"]
    if table.key:
        parts.append(f"primary key ({', '.join(table.key)})")
    parts += [f"{link.column} references {link.table}({link.other})" for link in table.foreign_keys]
    return ", ".join(parts)
