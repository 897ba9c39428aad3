"""What `tests/conftest.py` adds to pytest itself."""

from types import SimpleNamespace

import pytest
from conftest import pytest_terminal_summary

pytest_plugins = ["pytester"]
TESTS = """
import pytest

@pytest.fixture
def cluster():
    pytest.skip("needs SLURM (missing: slurmctld)")

@pytest.mark.parametrize("number", range({count}))
def test_of_jobs(cluster, number):
    pass

@pytest.mark.skipif(True, reason="needs a browser")
def test_of_a_page():
    pass

def test_of_nothing():
    pass
"""


@pytest.mark.parametrize("flags", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "xdist"])
def test_skips_are_told_in_one_line_for_each_reason(pytester, monkeypatch, flags):
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):  # that these tests may run in
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(test_one=TESTS.format(count=3), test_two=TESTS.format(count=2))
    hook = SimpleNamespace(pytest_terminal_summary=pytest_terminal_summary)
    told = pytester.runpytest_inprocess("-p", "no:cacheprovider", *flags, plugins=[hook])
    told.assert_outcomes(passed=2, skipped=7)
    lines = [line for line in told.outlines if "needs" in line]
    assert lines == [
        "needs SLURM (missing: slurmctld): 5 tests skipped",
        "needs a browser: 2 tests skipped",
    ]


def test_a_single_skip_is_told_as_one_test_and_what_fails_is_told_with_it(pytester):
    pytester.makepyfile("import pytest\ndef test_a():\n    pytest.skip('no\\nluck')\ndef test_b():\n    assert 0")
    hook = SimpleNamespace(pytest_terminal_summary=pytest_terminal_summary)
    told = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", plugins=[hook])
    assert "no luck: 1 test skipped" in told.outlines
    assert any(line.startswith("FAILED test_a_single") for line in told.outlines)
