"""What all tests share: golden texts, and events of every type drawn at random."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import inspect

from features.event import EVENT_CLASSES, AnyEvent, Event

GOLDEN = Path(__file__).parent / "golden"

# Shared machines stall: a slow draw is no failure.
settings.register_profile(
    "shoal", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("shoal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="rewrite tests/golden as found")


# Files of a minute or more come first (`make check` keeps this order), or the last one is left to one core.
LONG = {
    "test_cohorts",
    "test_contract",
    "test_matrix",
    "test_readme",
    "test_rings",
    "test_validity",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` holds the text to `tests/golden/name`."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), (
            f"no golden text {name}: look at `pytest --write-golden`'s and keep it"
        )
        assert text == path.read_text()

    return check


# --- events drawn at random

_WORDS = st.text(min_size=1, max_size=12)
_MAIL = st.builds(
    "{}@{}.example".format,
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=12),
    st.text(string.ascii_lowercase, min_size=1, max_size=12),
)
# The three fields whose text is read and not only hashed.
_READ = {
    "email": _MAIL,
    "phone": st.integers(10**6, 10**7 - 1).map(lambda n: f"+4930{n}"),
    "ip": st.ip_addresses().map(str),
}


def _values(kind: inspect.Type) -> SearchStrategy[Any]:
    match kind:
        case inspect.UnionType(types=types):
            return _values(types[0])  # absence is drawn by leaving the field out
        case inspect.StrType(pattern=str(pattern)):
            # without its anchors: `$` would also draw a line feed at the end
            return st.from_regex(pattern.lstrip("^").removesuffix("$"), fullmatch=True)
        case inspect.StrType():
            return _WORDS
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most)
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            return st.lists(_values(item), min_size=least or 0, max_size=min(most or 8, 8))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=4)
        case inspect.StructType(cls=cls):
            return _struct(cls, None)
    raise AssertionError(f"draw values for {kind}")


def _struct(cls: Any, optional_max: int | None) -> SearchStrategy[Any]:
    fields = msgspec.structs.fields(cls)
    values = {
        f.name: _READ[f.name] if f.name in _READ else _values(inspect.type_info(f.type))
        for f in fields
    }
    required = {f.name: values[f.name] for f in fields if f.required}
    optional = [f.name for f in fields if not f.required]

    def fill(names: list[str]) -> SearchStrategy[Any]:
        return st.builds(cls, **required, **{name: values[name] for name in names})

    chosen = st.lists(st.sampled_from(optional), unique=True, max_size=optional_max)
    return chosen.flatmap(fill)


def events_of(cls: type[Event], optional_max: int = 10) -> SearchStrategy[AnyEvent]:
    """Decoded events of one type; a few of the optional fields are filled."""
    return _struct(cls, optional_max)


@pytest.fixture(scope="session")
def any_event() -> SearchStrategy[AnyEvent]:
    """Decoded events of every type, as `decode` gives them."""
    return st.one_of([events_of(cls) for cls in EVENT_CLASSES])


@pytest.fixture(scope="session", params=EVENT_CLASSES, ids=lambda c: c.__struct_config__.tag)
def one_type(request: pytest.FixtureRequest) -> SearchStrategy[AnyEvent]:
    """The same, of one type after the other."""
    return events_of(request.param)
