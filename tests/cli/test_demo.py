"""``unireel demo``: the page, what the checker says on it, and what is refused."""

import json
import re
from html.parser import HTMLParser

import pytest

from unireel.cli.demo import CATEGORIES, FROM_PICTURE, QUESTIONS
from unireel.cli.demo_judge import (
    fact_words,
    judge_answer,
    judge_caption,
    judge_facts,
    questions_about,
    seen_scene,
)
from unireel.cli.demo_page import Chapter, Exchange, Verdict, page
from unireel.hub import packaged_models
from unireel.world.checker.observe import observe
from unireel.world.facts import Fact, Referent
from unireel.world.language import Question, caption_for, parse, prompt_for
from unireel.world.render import render
from unireel.world.sampling import CATEGORIES as ALL_CATEGORIES
from unireel.world.sampling import sample_scene

STAR, RING = Referent("star", "red"), Referent("ring", "orange")


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (Fact("count", Referent(), 1), "one object"),
        (Fact("count", RING, 1), "one orange ring"),
        (Fact("count", STAR, 3), "three red stars"),
        (Fact("count", STAR, 0), "zero red stars"),
        (Fact("object", RING), "an orange ring"),
        (Fact("size", STAR, "large"), "the red star is large"),
        (Fact("motion", STAR, "jump 2"), "the red star jumps twice"),
        (Fact("motion", RING, "move left"), "the orange ring moves left"),
        (Fact("background", value="navy"), "navy background"),
        (Fact("style", value="night"), "night style"),
        (Fact("camera", value="pans left"), "the camera pans left"),
        (
            Fact("relation", STAR, "above", RING, "last"),
            "the red star is above the orange ring at the end",
        ),
        (Fact("order", STAR, other=RING), "the red star starts before the orange ring"),
    ],
)
def test_facts_in_words(fact, words):
    assert fact_words(fact) == words


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_a_rendered_scene_is_read_back_and_its_facts_hold(category):
    """The renderer is the truth: what the page would say of a perfect film is that it is perfect."""
    scene = sample_scene(5, 0, "test", category, 48)
    seen = observe(render(scene))
    read = seen_scene(seen, scene.frames, scene.size)
    assert read is not None
    assert [each.events[0].action if each.events else None for each in by_name(read)] == [
        each.events[0].action if each.events else None for each in by_name(scene)
    ]
    assert (read.background, read.style, read.camera.motion) == (
        scene.background,
        scene.style,
        scene.camera.motion,
    )
    assert all(each.holds for each in judge_facts(prompt_for(scene, 0, category).facts, seen))
    assert all(each.holds for each in judge_caption(caption_for(scene), seen))


def by_name(scene):
    return sorted(
        scene.objects, key=lambda each: (each.shape, each.size, str(each.events and each.events[0].action))
    )


@pytest.mark.parametrize("category", ALL_CATEGORIES)
def test_another_film_does_not_show_the_facts(category):
    scene, other = (sample_scene(5, index, "test", category, 48) for index in (0, 1))
    facts = prompt_for(scene, 0, category).facts
    verdicts = judge_facts(facts, observe(render(other)))
    assert [each.statement for each in verdicts] == [fact_words(each) for each in facts]
    assert not all(each.holds for each in verdicts)


def test_questions_differ_in_type_and_include_change():
    scene = sample_scene(0, 0, "test", "repetition", 48)
    asked = questions_about(scene, 3, seed=0)
    assert len({each.type for each in asked}) == 3
    assert asked[0].type == "repetition"


def test_answers_are_compared_with_what_the_film_shows():
    question = Question("how many times does the star jump?", "twice", "repetition", True)
    assert judge_answer(question, " Twice\n", from_film=True) == Verdict("reads: twice", True)
    assert judge_answer(question, "once", from_film=True).holds is False
    assert judge_answer(question, "twice", from_film=False).holds is None


def test_page_is_complete_closed_and_escaped():
    chapter = Chapter(
        prompt='a <b>red</b> star & "more"',
        seed=1,
        film=b"film",
        first=b"picture",
        source="film-1.mp4",
        seconds=1.5,
        requested=(Verdict("a red star", True), Verdict("navy background", False)),
        exchanges=(
            Exchange("how many?", "<two>", 0.5, "film is clearly outside the World", Verdict("reads", None)),
        ),
        caption="there is one object.",
        caption_confidence=0.25,
        caption_note=None,
        captioned=(Verdict("one object", True),),
    )
    text = page([chapter], "pocket/base", {"time": "1 s"})
    assert "a &lt;b&gt;red&lt;/b&gt; star &amp; &quot;more&quot;" in text and "&lt;two&gt;" in text
    assert "<b>1 of 2</b> requested facts shown" in text
    assert "<b>0 of 0</b> answers right (1 more cannot be judged)" in text
    assert "50% sure" in text and "film is clearly outside the World" in text
    assert balanced(text)
    assert not addresses(text)


class Tags(HTMLParser):
    """Follows which tags are open."""

    EMPTY = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def balanced(text: str) -> bool:
    tags = Tags()
    tags.feed(text)
    return not tags.open and not tags.wrong


def addresses(text: str) -> list[str]:
    """Everything the page would load from elsewhere."""
    sources = re.findall(r'src="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    return [each[:80] for each in sources if not each.startswith("data:")] + re.findall(
        r"https?://[^\s\"<]+", text
    )


def test_out_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file.txt").write_text("words")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "it is a file" in fails(1, "demo", "--out", "file.txt")
    assert "other files" in fails(1, "demo", "--out", "mine")
    assert "does not exist" in fails(1, "demo", "--out", "missing/demo")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file.txt", "mine"]


def test_demo(here, untrained, tmp_path):
    model = "pocket/base" if "pocket/base" in packaged_models() else untrained
    result = here("demo", "--out", "tour", "--model", model)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert re.match(
        r"tour/index.html  7 films, \d+ of \d+ requested facts shown(?: \(\d+ more cannot be judged\))?, "
        r"\d+ of \d+ answers right(?: \(\d+ more cannot be judged\))?, \d+ s",
        result.stdout,
    )
    names = {each.name for each in (tmp_path / "tour").iterdir()}
    films = {f"film-{index}.{suffix}" for index in range(1, len(CATEGORIES) + 2) for suffix in ("mp4", "gif")}
    assert names == films | {"index.html", "sheet.png", "demo.json"}
    text = (tmp_path / "tour" / "index.html").read_text()
    assert balanced(text) and not addresses(text)
    told = json.loads((tmp_path / "tour" / "demo.json").read_text())
    assert len(told["films"]) == len((*CATEGORIES, FROM_PICTURE))
    for film in told["films"]:
        assert parse(film["prompt"]) and film["caption"].strip()
        assert len(film["exchanges"]) == QUESTIONS
        assert all(0 <= each["confidence"] <= 1 for each in film["exchanges"])
