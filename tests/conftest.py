"""What every test shares: one thread, the same examples on every run, and the folder of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch or tokenizers, which read these once.
os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"
)

settings.register_profile(
    "agentrl",
    deadline=None,  # a shared core may stall for longer than any deadline
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("agentrl")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data samples; a test that needs it skips where there is none."""
    folder = os.environ.get("AGENTRL_TEST_DATA")
    if not folder:
        pytest.skip("AGENTRL_TEST_DATA names no folder of real data")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"AGENTRL_TEST_DATA names {folder}, which is not a folder")
    return path
