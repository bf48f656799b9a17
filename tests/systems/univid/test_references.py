"""Prompts that need a picture, and how a film's facts are asked for."""

import pytest

from unireel.systems.base.verifying import LEAST, choose, question_of, verify
from unireel.systems.univid.references import SHOWN, plainly, referring, refers, resolved
from unireel.world.checker import observe
from unireel.world.facts import Fact, Referent
from unireel.world.language import parse, prompt_for, questions_for, unknown_words
from unireel.world.render import render
from unireel.world.sampling import sample_scene
from unireel.world.scene import Scene


def scenes(count: int, split: str = "test") -> list[Scene]:
    return [sample_scene(11, index, split, size=48) for index in range(count)]


@pytest.mark.parametrize("shown", SHOWN)
def test_a_referring_prompt_means_its_direct_one_and_does_not_say_what_the_picture_shows(shown):
    found = 0
    for number, scene in enumerate(scenes(60)):
        direct = prompt_for(scene, number)
        made = referring(direct, scene, number, shown)
        if made is None:
            continue
        found += 1
        figure = made.scene.objects[0]
        assert refers(made.text) and not refers(direct.text) and not unknown_words(made.text)
        assert made.picture.shape == (48, 48, 3)
        said = resolved(made.text.replace("the picture", "this picture"), figure.colour, figure.shape)
        meant = set(parse(said))
        if shown == "object":  # the size is in the picture, too
            assert meant <= set(parse(direct.text))
            assert {each.kind for each in set(parse(direct.text)) - meant} <= {"size"}
        else:
            assert meant == set(parse(direct.text))
        other = {"colour": figure.shape, "shape": figure.colour}.get(shown)
        nouns = {(each.shape, each.colour) for each in scene.objects}
        assert shown == "object" or other not in {(s, c)[shown == "shape"] for s, c in nouns if s in said and c in said
                                                 and (s == figure.shape) == (shown == "shape")} - {None}  # fmt: skip
        assert made.text == referring(direct, scene, number, shown).text  # type: ignore[union-attr]
    assert found > 20


def test_the_picture_shows_to_a_stranger_what_counts():
    pictures = [
        made for n, scene in enumerate(scenes(60)) if (made := referring(prompt_for(scene, n), scene, n))
    ]
    right = 0
    for made in pictures:
        from unireel.clip import Clip

        seen = observe(Clip(made.picture[None].repeat(17, 0), 8))
        figure = made.scene.objects[0]
        right += len(seen.objects) == 1 and (seen.objects[0].shape, seen.objects[0].colour) == figure.name
    assert right >= 0.9 * len(pictures)


def test_this_picture_is_the_picture():
    assert plainly("a star of the colour shown in this picture jumps") == (
        "a star of the colour shown in the picture jumps"
    )
    assert not refers("a red star jumps in the picture of a ring")


def test_questions_about_facts_are_the_worlds_own():
    """Where the World asks the same question about a film, its answer is the one that the fact expects."""
    compared = 0
    for number, scene in enumerate(scenes(80)):
        asked = {q.text: q.answer for seed in range(6) for q in questions_for(scene, seed)}
        for fact in prompt_for(scene, number).facts:
            pair = question_of(fact)
            if pair is None:
                continue
            assert not unknown_words(" ".join(pair)), pair
            if pair[0] in asked:
                compared += 1
                assert asked[pair[0]] == pair[1], fact
    assert compared > 60


class Eyes:
    """A model that sees everything: it answers by what the checker observes, and captions likewise."""

    def __init__(self, truths):
        self.truths = truths  # id of clip -> scene

    def ask_many(self, pairs, batch_size=32, judge=True):
        from unireel.systems.base.answering import Answer

        answers = []
        for clip, question in pairs:
            known = {
                q.text: q.answer for seed in range(12) for q in questions_for(self.truths[id(clip)], seed)
            }
            answers.append(Answer(known.get(question, "no"), 0.9))
        return answers

    def caption_many(self, clips, batch_size=32, judge=True):
        from unireel.systems.base.answering import Answer
        from unireel.world.language import caption_for

        return [Answer(caption_for(self.truths[id(clip)]), 0.9) for clip in clips]


def test_the_film_that_fulfils_the_prompt_is_kept():
    right = 0
    for number in range(8):
        wanted, *others = (sample_scene(12, 4 * number + i, "test", "motion", 48) for i in range(4))
        prompt = prompt_for(wanted, number)
        films = [others[0], others[1], wanted, others[2]]
        clips = [render(each) for each in films]
        eyes = Eyes({id(clip): scene for clip, scene in zip(clips, films, strict=True)})
        chosen = choose(clips, verify(eyes, clips, parse(prompt.text)))
        right += chosen.number == 2
        assert chosen.clip is clips[chosen.number] and len(chosen.verifications) == 4
    assert right == 8


def test_a_fact_without_a_question_rests_on_the_caption():
    scene = sample_scene(12, 0, "test", "motion", 48)
    clip = render(scene)
    figure = scene.objects[0]
    facts = [
        Fact("object", Referent(figure.shape, figure.colour)),
        Fact("count", Referent(None, "red", "small"), 3),
    ]
    verification = verify(Eyes({id(clip): scene}), [clip], facts)[0]
    assert verification.beliefs[0].captioned and not verification.beliefs[1].captioned
    assert verification.beliefs[1].question == "" and verification.beliefs[1].probability == 0
    assert verification.score < 0 and LEAST > 0


def test_the_first_of_equals_is_kept():
    scene = sample_scene(12, 1, "test", "motion", 48)
    clips = [render(scene), render(scene)]
    eyes = Eyes({id(clip): scene for clip in clips})
    assert choose(clips, verify(eyes, clips, parse(prompt_for(scene, 0).text))).number == 0
