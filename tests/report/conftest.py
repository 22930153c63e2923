"""Runs that were never trained, written once through the real event log."""

import pytest

from jaxhpo.record.history import history
from jaxhpo.report import trace
from tests.report import synthetic_run


@pytest.fixture(scope="session")
def pbt_run(tmp_path_factory):
    """8 PBT members beside 8 fixed ones, 12 rounds of 50 steps, exploits, two trials that break."""
    return synthetic_run.write(tmp_path_factory.mktemp("runs") / "pbt-0001", synthetic_run.events())


@pytest.fixture(scope="session")
def pbt_history(pbt_run):
    return history(pbt_run)


@pytest.fixture(scope="session")
def pbt_lineage(pbt_history):
    return trace(pbt_history)


@pytest.fixture
def make_run(tmp_path):
    """Writes a run with the given options of `synthetic_run.events`; gives its directory."""

    def make(*extra, **options):
        return synthetic_run.write(tmp_path / "run", [*synthetic_run.events(**options), *extra])

    return make
