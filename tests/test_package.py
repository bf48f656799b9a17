"""The promises of the package: what is imported is declared, what is declared is pinned, weights fit."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUN = [Requirement(each) for each in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(e) for e in each] for name, each in PROJECT["optional-dependencies"].items()}
DEVELOP = EXTRAS.pop("dev")
OPTIONAL = [requirement for extra in EXTRAS.values() for requirement in extra]
TESTED = [*DEVELOP, *EXTRAS["serve"], *EXTRAS["page"]]
"""What ``make test`` installs beside what is always needed."""


def imported(folder: Path) -> set[str]:
    """Top-level names of everything that the Python files below ``folder`` import from elsewhere."""
    local = {"unireel", *sys.stdlib_module_names, *(path.stem for path in folder.rglob("*.py"))}
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
    return names - local


@pytest.mark.parametrize(("folder", "declared"), [("src", RUN + OPTIONAL), ("tests", RUN + TESTED)])
def test_what_is_imported_is_declared(folder, declared):
    names = {canonicalize_name(each.name) for each in declared}
    homes = packages_distributions()
    for module in imported(ROOT / folder):
        distributions = {canonicalize_name(each) for each in homes.get(module, [module])}
        assert distributions & names, f"{folder} imports {module}, which pyproject.toml does not declare"


def test_every_dependency_is_pinned_within_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in RUN + TESTED:
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


def test_packaged_weights_fit_their_budget():
    """All packaged weights together may take 60 MB."""
    weights = (ROOT / "src" / "unireel" / "assets").rglob("*.safetensors")
    assert sum(path.stat().st_size for path in weights) <= 60_000_000
