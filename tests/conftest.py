"""What every test shares: quiet threads, no network, hypothesis without deadlines, the folder of fixtures."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch: threads that wait by spinning slow down whatever else runs on the machine,
# and more than a few threads gain nothing at the sizes that tests use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile("unireel", deadline=None, print_blob=True)
settings.load_profile("unireel")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of real inputs that ``UNIREEL_FIXTURES`` names; tests that need it are skipped without."""
    name = os.environ.get("UNIREEL_FIXTURES")
    if not name:
        pytest.skip("UNIREEL_FIXTURES is not set")
    folder = Path(name)
    assert folder.is_dir(), f"UNIREEL_FIXTURES names {name}, which is not a folder"
    return folder
