"""The loop with scripted roles: every branch of algorithm 1, what traces hold, and that nothing is lost."""

# Scripted roles stand for talkers and rankers of every kind.
# pyright: reportArgumentType=false

import json

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.systems.base.answering import Answer
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
from unireel.systems.univid.reflection.picture import evidence_sheet
from unireel.systems.univid.reflection.roles import (
    ModelActor,
    OwnConfidence,
    PromptedCaptioner,
    PromptedEvaluator,
    PromptedReflector,
    PromptedRouter,
    Roles,
    Route,
    StatementReflector,
    Verdict,
    View,
    read_json,
    seconds,
)
from unireel.systems.univid.reflection.rules import route_by_words, statement
from unireel.systems.univid.reflection.talkers import Said
from unireel.world.language import questions_for
from unireel.world.sampling import sample_scene

QUESTION = "what colour is the cup?"


class NumberRanker:
    """Frame i is the i-th axis; a text is the sum of the axes that its numbers name, the first weighing most."""

    name, key = "numbers", "numbers"

    def frame_vectors(self, frames: np.ndarray) -> np.ndarray:
        return np.eye(len(frames), 64, dtype=np.float32)

    def text_vector(self, text: str) -> np.ndarray:
        named = [int(word) for word in text.replace(",", " ").split() if word.isdigit()]
        vector = np.full(64, 1e-3, dtype=np.float32)
        for place, number in enumerate(named):
            vector[number] = 1 - place / 100
        return vector / np.linalg.norm(vector)


class Script:
    """All roles at once, playing what they are told and noting what they are shown."""

    reads_caption = True

    def __init__(
        self, scores, kind="static", refined=(), fallback: str | None = None, dies_at: str = ""
    ) -> None:
        self.scores, self.kind, self.refined, self.fallback = list(scores), kind, list(refined), fallback
        self.dies_at, self.calls, self.views = dies_at, [], []
        self.seen: list[tuple] = []

    def __str__(self) -> str:
        return "script"

    def roles(self) -> Roles:
        parts = {
            name: _Part(self, name) for name in ("router", "actor", "evaluator", "reflector", "captioner")
        }
        return Roles(**parts, fallback=_Part(self, "fallback") if self.fallback is not None else None)

    def count(self, name: str) -> int:
        return self.calls.count(name)


class _Part:
    reads_caption = True

    def __init__(self, script: Script, name: str) -> None:
        self.script, self.name = script, name

    def __str__(self) -> str:
        return f"script/{self.name}"

    def _called(self, *shown: object) -> int:
        number = self.script.count(self.name)
        if self.script.dies_at == f"{self.name} {number + 1}":
            raise UserError(f"the {self.name} does not answer")
        self.script.calls.append(self.name)
        self.script.seen.append((self.name, *shown))
        return number

    def route(self, question: str) -> Route:
        self._called(question)
        return Route(self.script.kind, "as told", 3, 1)

    def caption(self, view: View, keep) -> Said:
        self._called(len(view.frames))
        return Said("a cup on a table", tokens_in=100, tokens_out=10)

    def answer(self, *shown) -> Said | None:
        number = self._called(*shown[1:])
        if self.name == "fallback":
            return Said(self.script.fallback, 0.4) if self.script.fallback else None
        self.script.views.append(shown[0])
        return Said(f"answer {number + 1}", 0.5, 50, 2)

    def judge(self, question, caption, answer, frames) -> Verdict:
        number = self._called(question, caption, answer.text, frames)
        return Verdict(self.script.scores[number], "as told", 20, 5)

    def refine(self, question, caption, answer, verdict, queries) -> Said:
        number = self._called(tuple(queries))
        return Said(self.script.refined[number] if number < len(self.script.refined) else "", None, 7, 3)


def numbered_film(frames: int = 640) -> Clip:
    """Frame i has the level i // 10 modulo 200, so that pool frame k of 64 has the level k."""
    film = np.zeros((frames, 16, 16, 3), np.uint8)
    film[:] = (np.arange(frames) // 10 % 200)[:, None, None, None]
    return Clip(film, 10)


@pytest.fixture
def cache(tmp_path) -> FilmCache:
    return FilmCache(tmp_path / "cache")


def ask(script: Script, cache: FilmCache, question: str = QUESTION, trace=None, film=None, **settings):
    loop = PyramidReflection(script.roles(), NumberRanker(), ReflectionConfig(**settings), cache)
    return loop.ask(film or numbered_film(), question, trace)


class TestBranches:
    def test_accepted_at_once(self, cache):
        script = Script([0.9])
        result = ask(script, cache, "is 7 there or 3 or 60 or 12?".replace("?", " ?"))
        assert (result.text, result.confidence, result.reliable, result.note) == ("answer 1", 0.9, True, None)
        assert [each.frame for each in result.evidence] == [30, 70, 120, 600]
        assert [each.time for each in result.evidence] == [3.0, 7.0, 12.0, 60.0]
        assert sorted(script.calls) == ["actor", "captioner", "evaluator", "router"]
        (view,) = script.views
        assert view.frames[:, 0, 0, 0].tolist() == [3, 7, 12, 60] and np.all(np.diff(view.times) > 0)

    def test_the_threshold_itself_is_accepted(self, cache):
        assert ask(Script([0.7]), cache).reliable
        assert not ask(Script([0.69, 0.69, 0.69]), cache).reliable

    def test_expanding(self, cache):
        script = Script([0.1, 0.2, 0.8], refined=["20 21 22 23", "40 41 42 43 44 45 46 47"])
        result = ask(script, cache, "where are 1 2 3 4")
        assert [len(view.frames) for view in script.views] == [4, 8, 16]
        levels = [view.frames[:, 0, 0, 0].tolist() for view in script.views]
        assert levels == [[1, 2, 3, 4], [1, 2, 3, 4, 20, 21, 22, 23],
                          [1, 2, 3, 4, 20, 21, 22, 23, *range(40, 48)]]  # fmt: skip
        assert result.text == "answer 3" and result.reliable
        # The reflector is told what was searched so far, and is not asked after the last round.
        told = [each[1] for each in script.seen if each[0] == "reflector"]
        assert told == [("where are 1 2 3 4",), ("where are 1 2 3 4", "20 21 22 23")]

    def test_shrinking(self, cache):
        wanted = list(range(5, 21))
        script = Script([0.1, 0.2, 0.8], kind="dynamic", refined=[" ".join(map(str, range(5, 37))),
                                                                  " ".join(map(str, wanted))])  # fmt: skip
        result = ask(script, cache)
        assert [len(view.frames) for view in script.views] == [64, 32, 16]
        assert script.views[0].frames[:, 0, 0, 0].tolist() == list(range(64))
        assert script.views[2].frames[:, 0, 0, 0].tolist() == wanted
        assert result.reliable and len(result.evidence) == 16

    def test_falling_back_to_the_caption(self, cache):
        script = Script([0.1, 0.6, 0.3], fallback="a red one")
        result = ask(script, cache)
        assert result.text == "a red one" and result.confidence == 0.4 and not result.reliable
        assert "caption" in (result.note or "") and len(result.evidence) == 16
        assert script.seen[-1] == ("fallback", "a cup on a table")
        assert script.count("reflector") == 2 and script.count("actor") == 3

    @pytest.mark.parametrize("fallback", ["", None])
    def test_falling_back_to_the_best_round(self, cache, fallback):
        result = ask(Script([0.1, 0.6, 0.3], fallback=fallback), cache)
        assert result.text == "answer 2" and result.confidence == 0.6 and not result.reliable
        assert "best of 3" in (result.note or "") and len(result.evidence) == 8

    def test_a_models_warning_counts_more_than_its_score(self, cache):
        script = Script([0.9])
        roles = script.roles()
        roles.actor.answer = lambda *shown: Said("red", 0.9, warning="not a film")  # type: ignore[method-assign]
        result = PyramidReflection(roles, NumberRanker(), cache=cache).ask(numbered_film(), QUESTION)
        assert (result.text, result.reliable, result.note) == ("red", False, "not a film")

    def test_an_empty_search_text_keeps_the_last(self, cache):
        script = Script([0.1, 0.1, 0.9], refined=["20 21 22 23", ""])
        result = ask(script, cache)
        assert [each["select"]["query"] for each in result.trace["rounds"]] == [
            QUESTION,
            "20 21 22 23",
            "20 21 22 23",
        ]

    def test_everybody_who_reads_it_gets_the_caption(self, cache):
        script = Script([0.1, 0.9])
        ask(script, cache)
        assert script.count("captioner") == 1
        assert [each[2] for each in script.seen if each[0] == "actor"] == ["a cup on a table"] * 2
        assert [each[2] for each in script.seen if each[0] == "evaluator"] == ["a cup on a table"] * 2
        assert ("captioner", 16) in script.seen

    def test_the_mode_can_be_given(self, cache):
        script = Script([0.9])
        ask(script, cache, mode="dynamic")
        assert script.count("router") == 0 and len(script.views[0].frames) == 64

    @pytest.mark.parametrize(
        "frames, kind, sizes", [(17, "static", [4, 8, 16]), (5, "static", [4, 5]), (1, "static", [1]),
                                (17, "dynamic", [17, 16]), (16, "dynamic", [16]), (40, "dynamic", [40, 32, 16])]
    )  # fmt: skip
    def test_short_films_have_fewer_rounds(self, cache, frames, kind, sizes):
        script = Script([0.0] * 3, kind=kind)
        ask(script, cache, film=numbered_film(frames))
        assert [len(view.frames) for view in script.views] == sizes

    def test_the_soft_policy_is_repeatable(self, cache):
        runs = [Script([0.1, 0.1, 0.1]) for _ in range(3)]
        for script, seed in zip(runs, (0, 0, 1), strict=True):
            ask(script, cache, policy="soft", seed=seed)
        chosen = [[view.times.tolist() for view in script.views] for script in runs]
        assert chosen[0] == chosen[1] != chosen[2]
        assert all(set(a) <= set(b) for a, b in zip(chosen[0], chosen[0][1:], strict=False))

    def test_without_a_ranker(self, cache):
        script = Script([0.1] * 3)
        loop = PyramidReflection(script.roles(), None, ReflectionConfig(policy="even"), cache)
        result = loop.ask(numbered_film(), QUESTION)
        assert script.views[0].frames[:, 0, 0, 0].tolist() == [0, 21, 42, 63]
        assert [len(view.frames) for view in script.views] == [4, 8, 16] and result.evidence[0].score is None
        with pytest.raises(UsageError, match="needs a ranker"):
            PyramidReflection(script.roles(), None, ReflectionConfig(), cache)

    @pytest.mark.parametrize("question", ["", "  "])
    def test_an_empty_question(self, cache, question):
        with pytest.raises(UsageError, match="question is empty"):
            ask(Script([1.0]), cache, question)


class TestTraces:
    def test_everything_is_in_it(self, cache, tmp_path):
        script = Script([0.1, 0.9], refined=["20 21 22 23"])
        result = ask(script, cache, trace=tmp_path / "trace.json")
        trace = json.loads((tmp_path / "trace.json").read_text())
        assert trace == result.trace
        assert f'"pool": {trace["rounds"][0]["select"]["pool"]}' in (tmp_path / "trace.json").read_text()
        assert list(trace)[:7] == ["version", "film", "question", "settings", "roles", "ranker", "rounds"]
        one, two = trace["rounds"]
        assert list(one) == ["select", "actor", "evaluator", "reflector"] and "reflector" not in two
        assert one["select"]["frames"] == [each * 10 for each in one["select"]["pool"]]
        assert one["reflector"]["text"] == two["select"]["query"] == "20 21 22 23"
        assert two["evaluator"]["score"] == 0.9 and two["actor"]["text"] == "answer 2"
        # 3 + 100 + 2 * (50 + 20) + 7 tokens read, 1 + 10 + 2 * (2 + 5) + 3 said.
        assert (trace["result"]["tokens_in"], trace["result"]["tokens_out"]) == (250, 28)
        assert trace["result"]["seconds"] > 0

    def test_selecting_takes_less_than_five_milliseconds(self, cache):
        script = Script([0.0] * 3, kind="dynamic", refined=["1 2 3", "4 5 6"])
        rounds = ask(script, cache).trace["rounds"]
        assert min(each["select"]["selection_seconds"] for each in rounds[1:]) < 0.005

    @pytest.mark.parametrize(
        "dies_at",
        [
            "router 1",
            "captioner 1",
            "actor 1",
            "evaluator 1",
            "reflector 1",
            "actor 2",
            "evaluator 3",
            "fallback 1",
        ],
    )
    def test_an_endpoint_that_dies_loses_nothing(self, cache, tmp_path, dies_at):
        """The run goes on where it broke off: no step is made twice, and the answer is that of an unbroken run."""
        settings = {"refined": ["20 21 22 23", "30 31"], "fallback": "a red one"}
        unbroken = ask(Script([0.1, 0.2, 0.3], **settings), FilmCache(tmp_path / "other"))
        broken, path = Script([0.1, 0.2, 0.3], **settings, dies_at=dies_at), tmp_path / "trace.json"
        with pytest.raises(UserError, match="does not answer"):
            ask(broken, cache, trace=path)
        made = list(broken.calls)
        broken.dies_at = ""
        result = ask(broken, cache, trace=path)
        assert broken.calls[: len(made)] == made
        assert {name: broken.count(name) for name in set(broken.calls)} == {
            "router": 1, "captioner": 1, "actor": 3, "evaluator": 3, "reflector": 2, "fallback": 1
        }  # fmt: skip
        same = ("text", "confidence", "reliable", "note", "evidence", "tokens_in", "tokens_out")
        assert {n: result.trace["result"][n] for n in same} == {n: unbroken.trace["result"][n] for n in same}

    def test_a_finished_trace_is_the_answer(self, cache, tmp_path):
        first = ask(Script([0.9]), cache, trace=tmp_path / "trace.json")
        again = Script([])
        assert ask(again, cache, trace=tmp_path / "trace.json") == first and again.calls == []

    def test_a_trace_of_something_else_is_left_alone(self, cache, tmp_path):
        ask(Script([0.9]), cache, trace=tmp_path / "trace.json")
        with pytest.raises(UserError, match="holds another question"):
            ask(Script([0.9]), cache, "where is the cup?", tmp_path / "trace.json")
        (tmp_path / "notes.json").write_text("words")
        with pytest.raises(UserError, match="no trace"):
            ask(Script([0.9]), cache, trace=tmp_path / "notes.json")
        assert (tmp_path / "notes.json").read_text() == "words"

    def test_many_questions_survive_an_endpoint(self, cache, tmp_path):
        (tmp_path / "traces").mkdir()
        pairs = [(numbered_film(), f"where is cup {number}?") for number in range(4)]
        script = Script([0.9] * 9, dies_at="actor 3")
        loop = PyramidReflection(script.roles(), NumberRanker(), cache=cache)
        answers = []
        with pytest.raises(UserError):
            for each in loop.ask_many(pairs, tmp_path / "traces"):
                answers.append(each.text)
        assert answers == ["answer 1", "answer 2"]
        script.dies_at = ""
        assert [each.text for each in loop.ask_many(pairs, tmp_path / "traces")] == [
            "answer 1", "answer 2", "answer 3", "answer 4"
        ]  # fmt: skip
        assert script.count("actor") == 4

    def test_the_caption_is_made_once_a_film(self, cache):
        script = Script([0.9, 0.9])
        ask(script, cache)
        ask(script, cache, "another question about 5")
        assert script.count("captioner") == 1

    def test_the_picture(self, cache):
        result = ask(Script([0.1, 0.2, 0.9]), cache)
        sheet = np.asarray(evidence_sheet(cache.pool(numbered_film()), result.trace))
        # Each tile is its frame of 16 pixels, enlarged 7 times, of its frame's level of grey.
        shown = [place for entry in result.trace["rounds"] for place in entry["select"]["pool"]]
        assert len(shown) == 4 + 8 + 16
        grey = sheet[..., 0][(sheet == sheet[..., :1]).all(-1)]
        assert np.bincount(grey, minlength=64)[:64].tolist() == [
            112 * 112 * shown.count(level) for level in range(64)
        ]

    @pytest.mark.parametrize(
        "settings",
        [
            {"pool": 0},
            {"expand": (8, 4)},
            {"shrink": (16, 32)},
            {"threshold": 1.5},
            {"temperature": 0.0},
            {"seeds": 99},
        ],
    )
    def test_impossible_settings(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            ReflectionConfig(**settings)


class Parrot:
    """A talker that says one line after the other."""

    sees = True

    def __init__(self, *lines: str) -> None:
        self.lines, self.prompts, self.name = list(lines), [], "parrot"

    def say(self, prompt, pictures=(), most=256) -> Said:
        self.prompts.append((prompt, len(pictures)))
        return Said(self.lines.pop(0), 0.5, 10, 1)


class TestRoles:
    def test_json_is_found_in_any_reply(self):
        assert read_json('Sure!\n```json\n{"score": 0.5}\n```') == {"score": 0.5}
        assert read_json('{bad} {"a": {"b": 1}} {"c": 2}') == {"a": {"b": 1}}
        assert read_json("no") == {} == read_json("[1, 2]")

    @pytest.mark.parametrize(
        "reply, score",
        [('{"score": 0.85, "verdict": "accept"}', 0.85), ('{"score": 7}', 1.0), ('{"verdict": "Accept"}', 0.7),
         ('{"verdict": "reject"}', 0.0), ('{"score": 0.2, "verdict": "accept"}', 0.2)],
    )  # fmt: skip
    def test_scores(self, reply, score):
        verdict = PromptedEvaluator(Parrot(reply)).judge(QUESTION, "", Said("red"), 4)
        assert verdict.score == score

    def test_an_evaluator_that_cannot_be_read_is_asked_again(self):
        parrot = Parrot("good!", '{"score": 0.8}')
        assert PromptedEvaluator(parrot).judge(QUESTION, "a cup", Said("red"), 4) == Verdict(0.8, "", 20, 2)
        verdict = PromptedEvaluator(Parrot("good!", "very good!")).judge(QUESTION, "a cup", Said("red"), 4)
        assert verdict.score == 0 and "could not be read" in verdict.reason

    def test_own_confidence(self):
        assert OwnConfidence().judge(QUESTION, "", Said("red", 0.83), 4).score == 0.83
        with pytest.raises(UserError, match="how sure"):
            OwnConfidence().judge(QUESTION, "", Said("red"), 4)

    def test_routers(self):
        assert (
            PromptedRouter(Parrot('{"qtype": "dynamic", "rationale": "order"}')).route(QUESTION).kind
            == "dynamic"
        )
        route = PromptedRouter(Parrot("static, I think")).route("how often does it ring?")
        assert route.kind == "dynamic" and "could not be read" in route.reason

    def test_words_route_the_worlds_questions(self):
        right = total = 0
        for index in range(60):
            for question in questions_for(sample_scene(0, index, "test", size=48), 0):
                right += (route_by_words(question.text)[0] == "dynamic") == question.dynamic
                total += 1
        assert total > 400 and right / total > 0.98

    @pytest.mark.parametrize(
        "question, expected",
        [("what colour is the big cup?", "the big cup"), ("is there a pink ring?", "a pink ring"),
         ("how many times does the star jump?", "the star jump"), ("who opens the door?", "opens the door"),
         ("what?", "what")],
    )  # fmt: skip
    def test_statements(self, question, expected):
        assert statement(question) == expected

    def test_reflectors(self):
        said = PromptedReflector(Parrot('{"refined_query": " the red\\n cup "}')).refine(
            QUESTION, "", Said("red"), Verdict(0.1, ""), [QUESTION]
        )
        assert said.text == "the red cup"
        assert PromptedReflector(Parrot("hm")).refine(QUESTION, "", Said(""), Verdict(0, ""), []).text == ""
        rule = StatementReflector()
        assert rule.refine(QUESTION, "", Said("red"), Verdict(0.1, ""), [QUESTION]).text == "the cup"
        assert (
            rule.refine(QUESTION, "", Said("red"), Verdict(0.1, ""), [QUESTION, "the cup"]).text
            == "the cup, red"
        )

    def test_notes_of_a_caption_are_not_made_twice(self, cache):
        """An endpoint that dies at the third frame has described two, which are kept."""
        film = numbered_film(4)
        eye = Parrot("one", "two")
        roles = Roles.prompted(eye)
        assert isinstance(roles.captioner, PromptedCaptioner)
        config = ReflectionConfig(mode="static", policy="even", threshold=0.5)
        with pytest.raises(IndexError):
            PyramidReflection(roles, None, config, cache).ask(film, QUESTION)
        eye.lines = ["three", "four", "a film of four levels", "grey"]
        PyramidReflection(roles, None, config, cache).ask(film, QUESTION)
        assert len(eye.prompts) == 3 + 4 and eye.lines == []
        summary = eye.prompts[-2][0]
        assert "- 0.0 s: one\n- 0.1 s: two\n- 0.2 s: three" in summary
        act, pictures = eye.prompts[-1]
        assert pictures == 4 and "a film of four levels" in act and "0.0 s, 0.1 s, 0.2 s, 0.3 s" in act

    def test_a_model_is_asked_about_the_frames_alone(self):
        class Model:
            def ask_view(self, frames, question):
                self.levels = frames[:, 0, 0, 0].tolist()
                return Answer("red", 0.5, False, "this is no film of the World")

        model = Model()
        film = numbered_film(40).frames[::10]
        said = ModelActor(model).answer(View(film, np.arange(4.0), 4.0), QUESTION, "")
        assert said == Said("red", 0.5, warning="this is no film of the World")
        assert model.levels == [0, 1, 2, 3]

    def test_times_for_people(self):
        assert [seconds(each) for each in (3.25, 59.9, 60, 725, 3723.4)] == [
            "3.2 s", "59.9 s", "1:00", "12:05", "1:02:03"
        ]  # fmt: skip
