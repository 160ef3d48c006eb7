from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.valkey import EmbeddedValkey


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A client of a private Valkey that lives as long as the tests of this folder."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(folder, fsync="no") as valkey:
        yield valkey.client()


@pytest.fixture
def client(server: redis.Redis) -> redis.Redis:
    """The same, emptied."""
    server.flushdb()
    return server
