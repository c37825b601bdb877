"""From a domain's name to its champion's bundle, through resolvers that other distributions install."""

from __future__ import annotations

from pathlib import Path

import pytest

from infosam.errors import UnknownDomain
from infosam.resolvers import known_domains, resolve_domain

REGISTRY = """
from pathlib import Path
FOUND = {{"{domain}": Path({bundle!r})}}
resolve = FOUND.get
def domains():
    return list(FOUND)
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a resolver for `granite` (a name no other one knows), and one that does not import."""
    metadata = tmp_path / "registry-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: registry\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[infosam.resolvers]\nbroken = a_module_nobody_has:resolve\nextra = stones:resolve\n"
        "[infosam.domains]\nextra = stones:domains\n",
        encoding="utf-8",
    )
    bundle = tmp_path / "granite-bundle"
    (tmp_path / "stones.py").write_text(REGISTRY.format(domain="granite", bundle=str(bundle)), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return bundle


def test_the_resolver_that_knows_the_domain_answers(registry: Path) -> None:
    assert resolve_domain("granite") == registry


@pytest.mark.usefixtures("registry")
def test_an_unknown_domain_names_the_known_ones_and_what_could_not_be_asked() -> None:
    with pytest.raises(UnknownDomain) as caught:
        resolve_domain("granit")
    message = str(caught.value)
    assert "domain 'granit' has no champion; did you mean 'granite'? known domains: granite" in message
    assert "infosam.resolvers entry point 'broken'" in message


def test_without_any_champion_the_message_says_how_to_make_one() -> None:
    with pytest.raises(UnknownDomain, match="infosam sweep"):
        resolve_domain("granite")


@pytest.mark.usefixtures("registry")
def test_known_domains_are_listed() -> None:
    assert "granite" in known_domains()[0]
