"""The papers that the library follows are cited by their authors and titles."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "metalearn"
TITLES = {
    "Arnold et al.": {"Decoupling adaptation from modeling with meta-optimizers for meta learning"},
    "Franceschi et al.": {
        "A bridge between hyperparameter optimization and learning-to-learn",
        "Forward and reverse gradient-based hyperparameter optimization",
    },
    "Huisman": {"Revisiting learned optimizers in few-shot settings"},
    "Lee and Choi": {"Gradient-based meta-learning with learned layerwise metric and subspace"},
}
CITED = re.compile(
    r'^ +((?:Arnold|Franceschi|Huisman|Lee and Choi)\b[^"\n]*), "([^"]+)"', re.MULTILINE
)


def cited(path: Path) -> list[tuple[str, str]]:
    """Return the authors and titles that a file cites, of these papers."""
    return [
        (authors, " ".join(title.split())) for authors, title in CITED.findall(path.read_text())
    ]


@pytest.mark.parametrize(
    "path", sorted(filter(cited, PACKAGE.rglob("*.py"))), ids=lambda path: path.stem
)
def test_papers_are_cited_by_their_titles(path):
    for authors, title in cited(path):
        known = authors if authors in TITLES else f"{authors.split(',')[0]} et al."
        assert title in TITLES.get(known, set()), f"{authors}: {title}"
