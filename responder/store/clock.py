"""
The database's clock, as an expression in its statements.

Leases of nodes are compared in this one clock: those of the nodes may differ.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class database_clock(FunctionElement[float]):  # noqa: N801  # SQL functions are written in lower case
    """Seconds since 1970 at the moment of the statement, to a millisecond."""

    type = Double()
    inherit_cache = True


@compiles(database_clock, "postgresql")
def _postgresql(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(database_clock, "sqlite")
def _sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"
