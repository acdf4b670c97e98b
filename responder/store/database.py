"""
The interface between the store and a database: run a piece of work in a transaction.

Work is an ordinary function that takes a SQLAlchemy `Connection`; it is the same for all databases. `sqlite` runs it on
its own threads, `postgresql` on an asynchronous driver. Both turn exceptions of the driver into `StoreUnavailable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from responder.store.hints import Hint, Hints

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[Connection, P], T]


class Database(ABC):
    """One database. Every method raises `StoreUnavailable`, and the exceptions of the work itself."""

    @abstractmethod
    async def create(self) -> None:
        """Create an empty database if there is none, where this program can do that."""

    @abstractmethod
    async def exists(self) -> bool:
        """Return whether there is a database to connect to. Creates nothing."""

    @abstractmethod
    async def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* in a transaction that sees one state of the database from beginning to end."""

    @abstractmethod
    async def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Run *work* in a transaction that writes. It is on disk when this returns; if *work* raises, nothing is changed.
        """

    @abstractmethod
    async def migrate(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* like `write`, for changes of the schema: without a time limit, and in one process at a time."""

    @abstractmethod
    def stream(self, work: Work[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield the results of *work*, which are read one by one. Close the iterator if you leave it early."""

    def hints(
        self, listen_url: str | None, *, name: str, instance: str, heard: Callable[[Hint], object]
    ) -> Hints | None:
        """Return the exchange of hints as `Store.hints` does; by default there is none."""
        return None

    @abstractmethod
    async def verify(self) -> None:
        """Read all data. Raises `StoreUnavailable` if any of it is damaged."""

    @abstractmethod
    async def warnings(self) -> list[str]:
        """Return warnings about settings that put the data at risk, each with the way to fix it."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections; no other method may be called afterwards."""
