"""The web page in a real browser without a window: a visit from the first film to the last edit.

Screenshots of every station lie in the test's temporary folder (``pytest --basetemp=FOLDER`` chooses it).
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from unireel.clip import Clip
from unireel.serving.model import ServedModel

pytest.importorskip("gradio", reason="the web page's library is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE = 120.0
"""Seconds after which the page is broken rather than slow."""


class Inverting(ServedModel):
    """The tiny model, which can also be told to edit; the page's part is tested here, not the model's."""

    def __init__(self, served: ServedModel) -> None:
        super().__init__(served.pipeline, served.name, served.folder)
        self.abilities |= {"edit"}

    def films(self, jobs, progress):
        if not jobs[0].request.edit:
            return super().films(jobs, progress)
        progress(1, 1)
        sources = [job.source for job in jobs if job.source is not None]
        return [Clip(255 - source.frames, source.fps) for source in sources]


class Visit:
    """A browser on the page of a server."""

    def __init__(self, driver: Any, address: str, shots: Path) -> None:
        self.driver, self.address, self.shots = driver, address, shots

    def run(self, script: str, *values: Any) -> Any:
        """What a JavaScript expression is worth in the page."""
        return self.driver.execute_script(f"return ({script})", *values)

    def until(self, script: str) -> Any:
        """Wait until an expression holds."""
        end = time.monotonic() + PATIENCE
        while not (found := self.run(script)):
            if time.monotonic() > end:
                self.shot("stuck")
                raise AssertionError(f"never: {script}\n{self.run('document.body.innerText')[:2000]}")
            time.sleep(0.1)
        return found

    def find(self, selector: str) -> Any:
        """The element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def look(self, width: int, height: int, dark: bool) -> None:
        """Open the page on a screen of that size, by day or by night."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.get(self.address)
        self.until("document.querySelector('#prompt textarea')?.offsetParent")

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))

    def foreign(self) -> set[str]:
        """Addresses outside the server that the browser asked for since it was last looked."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        own = (self.address, "data:", "blob:", "chrome:", "about:")
        return {url for url in found if not url.startswith(own)}


@pytest.fixture
def visit_to(api_on: Callable[..., httpx.Client], tmp_path: Path) -> Iterator[Callable[[ServedModel], Visit]]:
    """``visit_to(model)`` opens a browser for a server with that model."""
    if not os.environ.get("UNIREEL_BROWSER"):
        pytest.skip("UNIREEL_BROWSER=1 runs the tests in a browser")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    drivers = []

    def go(model: ServedModel) -> Visit:
        client = api_on(page=True, model=model)
        drivers.append(webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)))
        return Visit(drivers[-1], str(client.base_url), tmp_path)

    yield go
    for driver in drivers:
        driver.quit()


def test_a_visit(visit_to: Callable[[ServedModel], Visit], served: ServedModel, tmp_path: Path) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    visit = visit_to(Inverting(served))
    visit.look(1280, 900, dark=False)

    # Make: two films beside each other, from the keyboard alone
    visit.run("document.querySelector('#prompt textarea').focus()")
    visit.driver.switch_to.active_element.send_keys("a red star jumps twice", keys.ENTER)
    visit.until("[...document.querySelectorAll('#results video')].filter(v => v.readyState > 1).length == 2")
    sizes = visit.run("[...document.querySelectorAll('#results video')].map(v => [v.videoWidth, v.duration])")
    assert sizes == [[480, pytest.approx(17 / 8)]] * 2
    assert "seed 0" in visit.find("#results").text and "seed 1" in visit.find("#results").text
    visit.shot("make")

    # A word that the model does not know is named
    box = visit.find("#prompt textarea")
    box.send_keys(" beside a unicorn", keys.ENTER)
    visit.until("document.querySelector('#results .problem')?.innerText.includes('unicorn')")
    box.clear()
    box.send_keys("a blue ring", keys.ENTER)
    visit.until("document.querySelectorAll('#results video').length == 2")

    # Ask about the second film; its evidence moves the player
    visit.run("document.querySelector('[data-press=ask-film-1]').click()")
    visit.until("document.getElementById('player')?.readyState > 1")
    visit.find("#question textarea").send_keys("how many objects are there?", keys.ENTER)
    visit.until("document.querySelector('#chat').innerText.includes('sure')")
    visit.until("document.querySelectorAll('[data-jump]').length == 17")
    visit.run("document.querySelectorAll('[data-jump]')[8].click()")
    visit.until("Math.abs(document.getElementById('player').currentTime - 1) < 0.01")
    assert visit.run("document.getElementById('player').paused")
    visit.shot("ask")

    # A film of one's own, and what is no film
    own = Clip.load(_film(tmp_path))
    visit.find("#film input[type=file]").send_keys(str(tmp_path / "own.mp4"))
    visit.until("document.getElementById('player')?.videoWidth == 320")
    assert visit.run("document.getElementById('player').duration") == pytest.approx(own.duration)
    visit.until("!document.querySelector('#chat').innerText.includes('sure')")
    visit.find("#describe").click()
    visit.until("document.querySelector('#chat').innerText.includes('sure')")

    # Edit, edit again, undo
    visit.run("[...document.querySelectorAll('[role=tab]')].find(t => t.innerText == 'Make').click()")
    visit.until("document.querySelector('#results figure')?.offsetParent")
    visit.run("document.querySelector('[data-press=edit-film-0]').click()")
    visit.until("document.querySelector('#edit-stage video')?.offsetParent")
    for count in (1, 2):
        visit.find("#instruction textarea").clear()
        visit.find("#instruction textarea").send_keys("make the star blue", keys.ENTER)
        visit.until(f"document.querySelectorAll('#chain li').length == {count}")
    visit.until("document.querySelectorAll('#edit-stage video').length == 3")
    visit.shot("edit")
    visit.find("#undo").click()
    visit.until("document.querySelectorAll('#chain li').length == 1")

    # By night, and on a telephone
    visit.look(1280, 900, dark=True)
    assert visit.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 19, 22)"
    visit.shot("night")
    visit.look(360, 740, dark=False)
    for tab in ("Ask", "Make"):
        visit.run(
            "[...document.querySelectorAll('[role=tab]')].find(t => t.innerText == arguments[0]).click()", tab
        )
        time.sleep(0.5)
        visit.shot(f"telephone-{tab.lower()}")
        assert visit.run("document.documentElement.scrollWidth") <= 360

    # What the model cannot do is not offered
    assert not visit.run("[...document.querySelectorAll('[role=tab]')].some(t => t.innerText == 'Imagine')")

    # Nothing has left the machine, and the browser had nothing to complain about
    assert visit.foreign() == set()
    complaints = [entry for entry in visit.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []


def test_imagining(visit_to: Callable[[ServedModel], Visit], imaginative: ServedModel, watched: Any) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    model = type(watched)(imaginative)
    visit = visit_to(model)
    visit.look(1280, 900, dark=False)
    visit.run("[...document.querySelectorAll('[role=tab]')].find(t => t.innerText == 'Imagine').click()")
    visit.until("document.querySelector('#imagine-prompt textarea')?.offsetParent")

    # A film and its description, from the keyboard alone
    visit.find("#imagine-prompt textarea").send_keys("a red star jumps", keys.ENTER)
    film = "document.querySelector('#imagine-results video')"
    visit.until(f"{film}?.readyState > 1 && document.querySelector('#imagine-results .description small')")
    words = visit.find("#imagine-results .description").text
    assert "% sure" in words and len(words.split()) > 2
    visit.until("document.querySelector('[data-press=imagine-ask-film-0]')")
    visit.shot("imagine")
    assert visit.run("document.querySelector('[data-press=imagine-edit-film-0]').offsetParent") is None

    # Stopped at a step: it says so, and the model is free for the next film
    model.hold(1)
    visit.find("#imagine").click()
    visit.until("document.querySelector('#imagine-results progress')")
    assert model.held.wait(PATIENCE)
    visit.find("#imagine-stop").click()
    visit.until("document.querySelector('#imagine-results').innerText.includes('Stopped')")
    model.go.set()
    visit.find("#imagine").click()
    visit.until(f"{film}?.readyState > 1 && document.querySelector('[data-press=imagine-ask-film-0]')")

    # Its film is asked about in the Ask tab
    visit.run("document.querySelector('[data-press=imagine-ask-film-0]').click()")
    visit.until("document.getElementById('player')?.readyState > 1")

    # By night, and on a telephone
    for width, height, dark, name in (
        (1280, 900, True, "imagine-night"),
        (360, 740, False, "imagine-telephone"),
    ):
        visit.look(width, height, dark)
        visit.run("[...document.querySelectorAll('[role=tab]')].find(t => t.innerText == 'Imagine').click()")
        visit.until("document.querySelector('#imagine-prompt textarea')?.offsetParent")
        visit.shot(name)
        assert visit.run("document.documentElement.scrollWidth") <= width
    assert visit.foreign() == set()
    complaints = [entry for entry in visit.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []


def _film(folder: Path) -> Path:
    import numpy as np

    frames = np.zeros((12, 180, 320, 3), dtype=np.uint8)
    frames[:, 40:90, 40:90] = (230, 60, 40)
    return Clip(frames, 12.0).save(folder / "own.mp4")
