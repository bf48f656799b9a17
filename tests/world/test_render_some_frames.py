"""Rendering a few frames of a film gives the pixels that the whole film has."""

import numpy as np
import pytest

from unireel.errors import UsageError
from unireel.world.render import render_frames
from unireel.world.sampling import sample_scene
from unireel.world.stories import sample_story


def test_chosen_frames_have_the_pixels_of_the_whole_film():
    cameras = set()
    for index in range(40):
        scene = sample_scene(4, index)
        cameras.add(scene.camera.motion)
        at = np.random.default_rng(index).integers(0, scene.frames, 4).tolist()
        assert np.array_equal(render_frames(scene, at), render_frames(scene)[at])
    assert len(cameras) > 3
    story = sample_story(4, 0, frames=129, size=48)
    at = [128, 3, 64, 3]
    assert np.array_equal(render_frames(story, at), render_frames(story)[at])
    assert render_frames(story, []).shape == (0, 48, 48, 3)


@pytest.mark.parametrize("at", [[17], [0, -1]])
def test_frames_outside_the_film_are_refused(at: list[int]):
    with pytest.raises(UsageError, match="accepted: 0 to 16"):
        render_frames(sample_scene(0, 0), at)
