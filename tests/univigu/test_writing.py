"""Text about films and with them: nothing given is lost, what is read once is exact, any number of steps."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalSubscript=false
# pyright: reportOptionalMemberAccess=false

from dataclasses import replace

import pytest
import torch

from unireel.backbones.text import word_tokenizer
from unireel.backbones.uni_rows import Film, Words
from unireel.errors import UserError
from unireel.flow.formulations import FORMULATIONS, text_flow
from unireel.flow.sampling import renoised, sample, time_grid
from unireel.systems.univigu.pages import (
    Page,
    caption_text,
    given_prompt,
    page_of,
    prompt_text,
    question_text,
    said_in,
)
from unireel.systems.univigu.pairs import PairSampling, sample_film, sample_pair
from unireel.systems.univigu.writing import Writer, read, write
from unireel.world.language import vocabulary

TOKENIZER = word_tokenizer(vocabulary())
V, END, B = len(TOKENIZER), TOKENIZER.eos_token_id, 2


@pytest.fixture(scope="module")
def models(make):
    made = {}

    def model_for(name: str):
        if name not in made:
            wide = {"code_width": 8} if name in ("embedding", "velocity") else {}
            output = {"text_output": "velocity"} if name == "velocity" else {}
            made[name] = make(V, text_mask=name in ("masked", "hybrid"), **wide, **output)
        model = made[name]
        return model, text_flow(name, V, getattr(model, "text_codes", None))

    return model_for


def inputs():
    torch.manual_seed(1)
    return torch.randn(B, 4, 3, 4, 4), torch.randn(B, 5, 24), torch.randn(1, 5, 24).expand(B, -1, -1)


def asked(slots: int = 6) -> Page:
    texts = [question_text("how many objects are there?", None), question_text("what is the style?", None)]
    return page_of(TOKENIZER, texts, slots, 64)


def test_pages_lay_out_what_is_given_and_what_is_open():
    page = page_of(TOKENIZER, [caption_text("a red star."), question_text("what colour?", None)], [2, 3], 64)
    words = [TOKENIZER.convert_ids_to_tokens(row) for row in page.ids.tolist()]
    assert words[0] == ["<caption>", "a", "red", "star", ".", "</s>", "<pad>", "<pad>"]
    assert words[1][:5] == ["<ask>", "what", "colour", "?", "<answer>"]
    assert page.given.sum(1).tolist() == [1, 5] and page.there.sum(1).tolist() == [8, 8]
    assert page.open.sum(1).tolist() == [7, 3]
    assert said_in(TOKENIZER, page.ids[0].tolist()) == "a red star."
    with pytest.raises(UserError, match="the text needs 65 places; the model has 64"):
        page_of(TOKENIZER, [prompt_text(None)], 64, 64)


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("steps", [1, 3, None])
def test_given_words_stay_and_open_ones_are_written(models, name, steps):
    model, flow = models(name)
    latents, context, _ = inputs()
    page = asked()
    generator = torch.Generator().manual_seed(0)
    one = write(model, flow, page, context, END, latents, steps=steps, generator=generator)
    assert torch.equal(one.ids[page.given], page.ids[page.given])
    assert bool((one.probabilities[page.given] == 1).all())
    assert bool(((one.probabilities >= 0) & (one.probabilities <= 1)).all())
    assert one.ids.max() < V and one.evaluations <= (steps or 6)
    again = write(model, flow, page, context, END, latents, steps=steps, generator=generator.manual_seed(0))
    assert torch.equal(one.ids, again.ids)


@pytest.mark.parametrize("name", FORMULATIONS)
def test_reading_a_film_once_is_exact(models, name):
    """Film and question read once, or with every evaluation: the same words, the same probabilities."""
    model, flow = models(name)
    latents, context, _ = inputs()
    results = [
        write(
            model,
            flow,
            asked(),
            context,
            END,
            latents,
            steps=5,
            generator=torch.Generator().manual_seed(0),
            reuse=each,
        )
        for each in (True, False)
    ]
    assert torch.equal(results[0].ids, results[1].ids)
    assert torch.allclose(results[0].probabilities, results[1].probabilities, atol=1e-5)
    memory = read(model, latents, context)
    third = write(
        model, flow, asked(), context, END, None, memory, steps=5, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(third.ids, results[0].ids)


def test_where_all_reads_all_reuse_is_an_approximation(make):
    """The released model lets a clean film read words: reading it once changes what is said; it is not the default."""
    model = make(V, one_way=False)
    flow = text_flow("masked", V)
    latents, context, _ = inputs()
    default, exact, near = (
        write(model, flow, asked(), context, END, latents, steps=2, reuse=each)
        for each in (None, False, True)
    )
    assert torch.equal(default.probabilities, exact.probabilities)
    assert not torch.allclose(near.probabilities, exact.probabilities, atol=1e-6)


def test_each_film_is_read_for_its_own_text(models):
    model, flow = models("masked")
    latents, context, _ = inputs()
    page = asked()
    together = write(model, flow, page, context, END, latents)
    for row in range(B):
        part = slice(row, row + 1)
        alone = Page(page.ids[part], page.given[part], page.there[part])
        one = write(model, flow, alone, context[part], END, latents[part])
        assert torch.allclose(one.probabilities, together.probabilities[part], atol=1e-5)


def test_any_words_can_be_given(models):
    """Blanks in the middle are filled; what stands around them is kept."""
    model, flow = models("masked")
    latents, context, _ = inputs()
    page = page_of(TOKENIZER, [caption_text("a red star jumps.")] * B, 0, 64)
    given = page.given.clone()
    given[:, [1, 3, 5, 6]] = True
    page = Page(page.ids, given, page.there)
    done = write(model, flow, page, context, END, latents)
    assert torch.equal(done.ids[given], page.ids[given])
    assert done.evaluations == 2


class Certain:
    """A network that is sure of one text, and surest of its first words and of its end."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids, self.config, self.rows = ids, {"one_way": True}, []

    def streams(self, context, film=None, words=None, memory=None, remember=False):
        from unireel.backbones.uni_rows import Memory, Seen

        if remember:
            return Seen(None, None, Memory(words.there))
        self.rows.append(words.time.shape[1])
        wanted = self.ids[words.counted()]
        logits = torch.nn.functional.one_hot(wanted, V) * (9.0 - 0.01 * words.counted()[..., None])
        logits[wanted == END] *= 3
        return Seen(None, logits, None)


def test_no_flood_of_padding():
    """Once the end is fixed, the slots behind it are no longer computed."""
    text = [*TOKENIZER("there is one object.")["input_ids"], END]
    ids = torch.tensor([TOKENIZER.convert_tokens_to_ids("<caption>"), *text, *[0] * 50])
    network = Certain(ids)
    page = page_of(TOKENIZER, [caption_text(None)], 50, 64)
    done = write(network, text_flow("masked", V), page, torch.zeros(1, 1, 1), END)
    assert said_in(TOKENIZER, done.ids[0].tolist()) == "there is one object."
    assert network.rows[0] == 50 and set(network.rows[1:]) == {len(text)}
    assert done.evaluations == len(text)


def test_guidance_is_by_the_film(models):
    model, flow = models("uniform")
    latents, context, _ = inputs()
    writer = Writer(model, flow, asked(), END, torch.Generator().manual_seed(0))
    page, time = asked(), torch.ones(B, 1)
    with torch.no_grad():
        film = Film(latents, torch.zeros(B), torch.ones(B, dtype=torch.bool))
        having = model.streams(context, film, writer.whole(time)).text
        without = model.streams(context, words=writer.whole(time)).text
    wanted = (without + 3 * (having - without)).double().softmax(-1)
    done = write(
        model,
        flow,
        page,
        context,
        END,
        latents,
        steps=1,
        guidance=3.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(done.ids[page.open], wanted.argmax(-1)[page.open])
    assert torch.allclose(done.probabilities[page.open], wanted.amax(-1)[page.open], atol=1e-5)


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("film_steps, text_steps", [(4, 4), (2, 5), (5, 2), (1, 1)])
def test_pairs_at_any_number_of_steps(models, name, film_steps, text_steps):
    model, flow = models(name)
    noise, context, empty = inputs()
    page = page_of(TOKENIZER, [caption_text(None)] * B, 8, 64)
    counted = []
    film, text = sample_pair(
        model,
        flow,
        noise,
        page,
        context,
        empty,
        END,
        PairSampling(film_steps, text_steps, 2.0, 1.5),
        generator=torch.Generator().manual_seed(0),
        on_step=lambda number, time, state: counted.append(number) or state,
    )
    assert counted == list(range(film_steps))
    assert text.evaluations == max(film_steps, text_steps)
    assert film.shape == noise.shape and bool(film.isfinite().all())
    assert bool((text.ids[page.open] < V).all()) and torch.equal(text.ids[page.given], page.ids[page.given])


def test_a_pair_steps_as_its_equations_say(models):
    """Two steps by hand: Euler for the film (data prediction), the flow's own step for the text."""
    model, flow = models("uniform")
    noise, context, empty = inputs()
    page = page_of(TOKENIZER, [caption_text(None)] * B, 4, 64)
    own = PairSampling(2, 2, 1.0, 1.0, 2.0, 1.0)
    film, text = sample_pair(
        model, flow, noise, page, context, empty, END, own, generator=torch.Generator().manual_seed(3)
    )
    generator, state = torch.Generator().manual_seed(3), noise
    words = torch.where(page.open, flow.noise((B, 5), generator), page.ids)
    for film_time, then, text_time in ((1.0, 2 / 3, 1.0), (2 / 3, 0.0, 0.5)):
        rows = Words(words, 1000 * text_time * page.open, page.there, page.given)
        with torch.no_grad():
            seen = model.streams(context, Film(state, torch.full((B,), 1000 * film_time)), rows)
        state = state + (then - film_time) * (state - seen.video) / film_time
        if text_time == 1.0:
            moved = flow.step(seen.text, words, 1.0, 0.5, generator)
            words = torch.where(page.open, moved, words)
    assert torch.allclose(film, state, atol=1e-4)
    assert torch.equal(text.ids[page.open], seen.text.argmax(-1)[page.open])


def test_a_pair_is_made_once_more_from_the_middle(models):
    """One step by hand: the film, noised again, as the network sees it beside words that nobody knows yet."""
    model, flow = models("masked")
    noise, context, empty = inputs()
    page = page_of(TOKENIZER, [caption_text(None)] * B, 4, 64)
    own = PairSampling(4, 1)
    once, before = sample_pair(model, flow, noise, page, context, empty, END, own)
    film, text = sample_pair(model, flow, noise, page, context, empty, END, replace(own, restart=0.5))
    words = torch.where(page.open, V, page.ids)
    state = renoised(once, noise, 0.5)
    assert torch.allclose(state, 0.5 * once + 0.5 * noise[:, [3, 0, 1, 2]])
    rows = Words(words, 1000.0 * page.open, page.there, page.given)
    with torch.no_grad():
        seen = model.streams(context, Film(state, torch.full((B,), 500.0)), rows)
    assert torch.allclose(film, seen.video, atol=1e-4)
    assert torch.equal(text.ids[page.open], seen.text[..., :V].argmax(-1)[page.open])
    assert text.evaluations == before.evaluations + 1
    picture = noise[:, :, :1]
    pictures = [
        sample_pair(model, flow, picture, page, context, empty, END, replace(own, restart=each))[0]
        for each in (0.0, 0.5)
    ]
    assert torch.equal(*pictures)


def test_first_frames_and_given_words_are_kept(models):
    model, flow = models("masked")
    noise, context, empty = inputs()
    page = page_of(TOKENIZER, [caption_text("a red star.")] * B, 0, 64)
    given = page.given.clone()
    given[:, 2] = True
    page = Page(page.ids, given, page.there)
    first = torch.randn(B, 4, 1, 4, 4)
    own = PairSampling(3, 4, churn=0.5)
    film, text = sample_pair(model, flow, noise, page, context, empty, END, own, first)
    assert torch.equal(film[:, :, :1], first)
    assert torch.equal(text.ids[given], page.ids[given])


def test_films_that_read_a_text(models):
    """With the text in the stream, read once; without any text, exactly what the film's own sampler makes."""
    model, flow = models("masked")
    noise, context, empty = inputs()
    page = page_of(TOKENIZER, [given_prompt("a red star jumps"), given_prompt("a ring")], 0, 64)
    own = PairSampling(3, film_guidance=2.0)
    film = sample_film(model, flow, noise, page, context, empty, END, own)

    class Whole:
        """The same without memory: the text's rows beside the film's at every step."""

        config = {"patch_size": (1, 2, 2), "in_channels": 4, "out_channels": 4}  # noqa: RUF012

        def __call__(self, hidden_states, timestep, **_):
            rows = Words(page.ids, torch.zeros(page.ids.shape), page.there, page.given | True)
            having = model.streams(context, Film(hidden_states, timestep), rows).video
            without = model.streams(empty, Film(hidden_states, timestep)).video
            return (without + 2 * (having - without),)

    whole = sample(Whole(), noise, context, context, 3, 1.0, 2.0, prediction="data")
    assert torch.allclose(film, whole, atol=1e-4)
    assert len(time_grid(3, 2.0)) == 4


def test_what_cannot_be_asked(models):
    model, flow = models("uniform")
    noise, context, empty = inputs()
    with pytest.raises(ValueError, match="needs a formulation with unknown words"):
        write(model, flow, asked(), context, END, noise, order="sure")
    with pytest.raises(ValueError, match="at least one step of each, not 0 and 24"):
        PairSampling(0)
    with pytest.raises(ValueError, match="words that are not given"):
        sample_film(model, flow, noise, asked(), context, empty, END)
