"""Reports: what they say, and how they look to a browser that has no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from unireel.cli.main import main
from unireel.clip import Clip
from unireel.evaluation.geneval.summary import TAGS
from unireel.evaluation.vbench.dimensions import DIMENSIONS
from unireel.evaluation.worldbench import runner

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def film(path: Path, shade: int) -> Path:
    """A film of 9 frames in which a square of a shade moves."""
    frames = np.full((9, 32, 48, 3), 40, dtype=np.uint8)
    for number in range(9):
        frames[number, 8:24, 2 * number : 2 * number + 16] = shade, 255 - shade, 128
    return Clip(frames, 8).save(path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A page of every kind, made by the commands."""
    folder = tmp_path_factory.mktemp("reports")
    films = [film(folder / f"a red <b>square-{n}.mp4", 60 * n) for n in range(4)]
    pages = {}

    def run(name: str, page: Path, *words: object) -> None:
        assert main([str(each) for each in words]) == 0
        pages[name] = page.read_text()

    detailed = [{"video_path": str(path), "video_results": 0.9 + n / 100} for n, path in enumerate(films)]
    results = {each: [0.5, []] for each in DIMENSIONS} | {"color": [0.915, detailed]}
    (folder / "vbench.json").write_text(json.dumps(results))
    page = folder / "vbench.html"
    run("vbench", page, "evaluate", "aggregate", "vbench", folder / "vbench.json", "--page", page)

    lines = [
        {"tag": tag, "prompt": f"{tag} & {n}", "correct": n > 1, "filename": str(path)}
        for tag in TAGS
        for n, path in enumerate(films)
    ]
    (folder / "geneval.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    page = folder / "geneval.html"
    run("geneval", page, "evaluate", "aggregate", "geneval", folder / "geneval.jsonl", "--page", page)

    rows = [
        {
            "source": str(films[0]),
            "edited": str(path),
            "instruction": f"make it {n}",
            "id": str(n),
        }
        for n, path in enumerate(films)
    ]
    (folder / "pairs.json").write_text(json.dumps(rows))
    out = folder / "edits"
    run("editing", out / "report.html", "evaluate", "editing", "--pairs", folder / "pairs.json", "--out", out)

    (folder / "v_one.mp4").write_bytes(films[0].read_bytes())
    questions = [
        {"question_id": f"{name}_{n}", "video_name": name, "question": f"what is {n}"}
        for name in ("one", "gone")
        for n in range(4)
    ]
    answers = [{"question_id": each["question_id"], "answer": "red", "type": 4} for each in questions]
    for name, right in (("first", 5), ("second", 2)):
        said = [
            {"question_id": each["question_id"], "pred": "red" if n < right else "<i>blue</i>"}
            for n, each in enumerate(questions)
        ]
        for file, content in (("q", questions), ("a", answers), ("p", said)):
            (folder / f"{file}.json").write_text(json.dumps(content))
        out = folder / name
        words = ["--predictions", folder / "p.json", "--questions", folder / "q.json"]
        words += ["--answers", folder / "a.json", "--dataset", "activitynet-qa", "--videos", folder]
        run("videoqa", out / "report.html", "evaluate", "videoqa", *words, "--out", out)
    page = folder / "compare.html"
    run("compare", page, "compare", folder / "first", folder / "second", "--page", page)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "CHECKER_FILMS", 2)
        out = folder / "world"
        words = ["--model", "world:shuffled", "--categories", "edit/recolour,qa/style,needle", "--n", "2"]
        run("worldbench", out / "report.html", "evaluate", "worldbench", *words, "--out", out)
    return pages


def cells(page: str, model: str) -> list[str]:
    """What stands in a model's row of the published numbers."""
    row = re.search(rf"<th scope=row>{re.escape(model)}</th>(.*?)</tr>", page.split("Beside published")[1])
    assert row is not None
    return [unescape(each) for each in re.findall(r"<td[^>]*>(.*?)</td>", row[1])]


def test_published_numbers_stand_beside_with_their_source(pages: dict[str, str]) -> None:
    assert cells(pages["vbench"], "UniVid")[:4] == ["UniVid, Table 1", "85.27", "86.44", "80.58"]
    assert cells(pages["vbench"], "Omni-Video")[0] == "Omni-Video, Table 3"
    ours = cells(pages["vbench"], "vbench.json")
    assert ours[0] == "this run"
    assert any(each.startswith("91.50<small>9") for each in ours)
    assert cells(pages["geneval"], "Omni-Video")[1] == "0.75"
    assert cells(pages["geneval"], "geneval.jsonl")[1].startswith("0.50<small>")
    assert "Beside published" not in pages["editing"]
    assert "Beside published" not in pages["videoqa"]  # exact match is not what the papers report


def test_best_and_worst_play(pages: dict[str, str]) -> None:
    assert pages["vbench"].count("data:image/webp") == 4
    assert pages["geneval"].count("data:image/webp") == 4 * len(TAGS)
    assert pages["editing"].count("data:image/webp") == 8
    assert pages["videoqa"].count("data:image/webp") == 4  # the other video is not there
    assert pages["worldbench"].count('alt="the film that was given"') == 2


def test_words_from_files_stay_words(pages: dict[str, str]) -> None:
    assert "<b>square" not in pages["vbench"]
    assert escape("a red <b>square-0") in pages["vbench"]
    assert "<i>blue</i>" not in pages["videoqa"] + pages["compare"]


CHECK = """
<body><script>
window.addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
    const images = [...page.images];
    const sources = [...page.querySelectorAll("[src],[href]")].map(each => each.src || each.href);
    return {name: frame.name, wide: root.scrollWidth - view.innerWidth, images: images.length,
      spilled: images.filter(each => each.getBoundingClientRect().right >
        each.closest("figure").getBoundingClientRect().right).length,
      broken: images.filter(each => !each.complete || !each.naturalWidth).length,
      outside: sources.filter(each => !each.startsWith("data:")).length
        + view.performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:")).length,
      svg: [...page.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().height < 20).length};
  });
  const said = document.createElement("pre");
  said.id = "found"; said.textContent = JSON.stringify(found);
  document.body.replaceChildren(said);
});
</script>
"""


@pytest.mark.skipif(
    CHROMIUM is None or not os.environ.get("UNIREEL_BROWSER"), reason="needs chromium and UNIREEL_BROWSER=1"
)
def test_a_browser_without_network_shows_everything(pages: dict[str, str], tmp_path: Path) -> None:
    assert CHROMIUM is not None
    frames = "".join(
        f'<iframe name="{name}{width}" width="{width}" height="800" srcdoc="{escape(page)}"></iframe>'
        for name, page in pages.items()
        for width in (1200, 400)
    )
    together = tmp_path / "together.html"
    text = "<!doctype html><meta charset=utf-8>" + CHECK + frames
    together.write_text(text.replace(escape(' loading="lazy"'), ""))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"]
    flags += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", together.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    said = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert said is not None, done.stderr[-500:]
    found = json.loads(unescape(said[1]))
    assert len(found) == 2 * len(pages)
    for page in found:
        assert [page[each] for each in ("broken", "spilled", "outside", "svg")] == [0] * 4, page
        assert page["wide"] <= 0, page
        assert page["images"] == pages[page["name"].rstrip("0124")].count("<img")
