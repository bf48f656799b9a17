"""The page of the papers' tables has every row of every committed table, to the digit, and commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from unireel.cli.main import build_parser
from unireel.errors import UsageError
from unireel.evaluation.papers import TABLES, Row, rows

PAGE = (Path(__file__).parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
QA = ("msvd_qa", "msrvtt_qa", "tgif_qa", "activitynet_qa")


def cell(value: str | float | None, digits: int | None = None) -> str:
    return "–" if value is None else f"{value:g}" if digits is None else f"{value:.{digits}f}"


def printed(row: Row) -> str:
    """A row's figures as the page has them."""
    if "total" in row:
        return " | ".join(cell(row[name], 2) for name in ("total", "quality", "semantic"))
    if "overall" in row:
        return " | ".join(cell(value, 2) for name, value in row.items() if name != "model")
    if "msvd_qa_accuracy" in row:
        pairs = ((row[f"{name}_accuracy"], row[f"{name}_score"]) for name in QA)
        return " | ".join(f"{cell(one, 1)}, {cell(two, 1)}" for one, two in pairs)
    return " | ".join(cell(value) for name, value in row.items() if name != "model")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_stands_on_the_page(name: str) -> None:
    if name == "univid_table1":  # rows that both papers have are the other's, whose columns agree
        known = {str(row["model"]): row for row in rows("omnivideo_table3")}
        found = [known.get(str(row["model"]), row) for row in rows(name)]
        found = [row for row in found if not str(row["model"]).startswith("Vchitect")]
    else:
        found = rows(name)
    missing = [row["model"] for row in found if f"| {printed(row)} |" not in PAGE]
    assert missing == []


def test_its_commands_are_taken() -> None:
    """Every command of ours on the page has options that exist (values are the reader's)."""
    blocks = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.partition("#  ")[0].partition(" # ")[0] for line in lines if line.startswith("unireel ")]
    assert len(commands) >= 10
    for line in commands:
        words = shlex.split(line)[1:]
        try:
            build_parser(words[0]).parse_args(words)
        except UsageError as error:
            raise AssertionError(f"{line}: {error}") from None
