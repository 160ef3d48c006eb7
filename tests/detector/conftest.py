import pytest

from detector.model import Model
from tests.detector.handmade import made_model


@pytest.fixture(scope="session")
def made() -> Model:
    """Scores a tenth of: accounts on the card (events), on the device (sweeps), members (clusters)."""
    return made_model()
