"""The skip policy of conftest.py: in CI a skip that is not listed fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty suite under the same conftest, in CI, that allows one reason and one node."""
    pytester.makeconftest(CONFTEST)
    (pytester.path / "allowed_skips.txt").write_text(
        "# comment\n\n* | needs a CUDA GPU\ntest_listed.py::test_case[a] | any*\n", encoding="utf-8"
    )
    monkeypatch.setenv("CI", "true")
    return pytester


def skipping(reason: str) -> str:
    return f"import pytest\n\ndef test_it():\n    pytest.skip({reason!r})\n\ndef test_other():\n    pass\n"


def test_unlisted_skip_fails_in_ci(suite: pytest.Pytester) -> None:
    suite.makepyfile(skipping("no database server"))
    result = suite.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skips that CI does not allow*", "*::test_it | no database server"])


def test_unlisted_skip_is_fine_outside_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    suite.makepyfile(skipping("no database server"))
    assert suite.runpytest_subprocess().ret == pytest.ExitCode.OK


def test_listed_reason_passes_in_ci(suite: pytest.Pytester) -> None:
    suite.makepyfile(skipping("needs a CUDA GPU"))
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == pytest.ExitCode.OK


def test_listed_node_covers_only_its_own_parameters(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        test_listed="""
        import pytest

        @pytest.mark.parametrize("letter", ["a", "b"])
        def test_case(letter):
            pytest.skip("anything")
        """
    )
    result = suite.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["test_listed.py::test_case?b? | anything"])
    result.stdout.no_fnmatch_line("test_listed.py::test_case?a? | anything")


@pytest.mark.parametrize(
    "module",
    [
        "import pytest\npytest.skip('module is off', allow_module_level=True)",
        "import pytest\npytest.importorskip('a_module_nobody_has')",
        "import pytest\npytestmark = pytest.mark.skip(reason='marked')\ndef test_it():\n    pass",
    ],
)
def test_whole_modules_count_too(suite: pytest.Pytester, module: str) -> None:
    suite.makepyfile(module)
    assert suite.runpytest_subprocess().ret == pytest.ExitCode.TESTS_FAILED


def test_expected_failures_are_not_skips(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    assert False\n")
    assert suite.runpytest_subprocess().ret == pytest.ExitCode.OK


def test_a_failing_run_keeps_its_own_exit_code(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n\ndef test_it():\n    pytest.skip('x')\n\ndef test_bad():\n    assert False\n")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=1, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_malformed_list_is_named(suite: pytest.Pytester) -> None:
    (suite.path / "allowed_skips.txt").write_text("no separator here\n", encoding="utf-8")
    suite.makepyfile("def test_it():\n    pass\n")
    result = suite.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*allowed_skips.txt:1*no separator here*"])
