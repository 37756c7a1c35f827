"""The page in a browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from maskformer.data.shapes import render_scene

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 30_000  # milliseconds


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def tab(request, served):
    """A page of the demo, and what went wrong on it."""
    if CHROMIUM is None:
        pytest.skip("the browser tests need Chromium (chromium, chromium-browser or google-chrome on the PATH)")
    width, height = request.param
    with sync_playwright() as driver:
        # Containers run as root, where Chromium has no sandbox; the page is ours.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.set_default_timeout(WAIT)
        wrong = []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
        tab.on("request", lambda asked: wrong.append(asked.url) if served[0].local_url not in asked.url else None)
        tab.goto(served[0].local_url)
        tab.wait_for_selector(".empty")
        yield tab
        browser.close()
        assert [url for url in wrong if not url.startswith(("data:", "blob:"))] == []


@pytest.fixture
def scene(tmp_path):
    """An image to upload."""
    path = tmp_path / "scene.png"
    Image.fromarray(render_scene("validation", 11, 160)["image"]).save(path)
    return path


def upload(tab, path) -> None:
    """Gives the page an image and waits for its answer."""
    tab.set_input_files("#image input[type=file]", path)
    tab.wait_for_selector(".viewer")


def changes(tab, action) -> str:
    """The viewer's segment ids, after `action` has changed them and they have come to rest."""
    before = tab.get_attribute(".viewer", "data-ids")
    action()
    tab.wait_for_function("ids => document.querySelector('.viewer')?.dataset.ids !== ids", arg=before)
    while (ids := tab.get_attribute(".viewer", "data-ids")) != before:
        before = ids
        tab.wait_for_timeout(500)
    return ids


def slide(tab, number: int, value: str) -> None:
    """Sets a slider by its number field."""
    field = tab.locator("#thresholds input[type=number]").nth(number)
    field.fill(value)
    field.press("Enter")


def test_upload_tasks_sliders_legend_and_download(tab, scene, tmp_path):
    upload(tab, scene)
    changes(tab, lambda: [slide(tab, number, "0.1") for number in (0, 2)])
    for task in ("semantic", "instance", "panoptic"):
        changes(tab, lambda task=task: tab.get_by_label(task, exact=True).click())
        tab.wait_for_selector("#thresholds", state="hidden" if task == "semantic" else "visible")
    tab.wait_for_selector(".legend button[aria-pressed=true]")
    shown = changes(tab, lambda: tab.locator(".legend button").first.click())
    tab.wait_for_selector(".legend button[aria-pressed=false]")
    assert changes(tab, lambda: tab.locator(".legend button").first.click()) != shown

    with tab.expect_download() as download:
        tab.locator("#download").click()
    download.value.save_as(tmp_path / "answer.zip")
    assert download.value.suggested_filename == "maskformer_panoptic.zip"
    with zipfile.ZipFile(tmp_path / "answer.zip") as files:
        content = json.loads(files.read("segments.json"))
    assert content["width"] == 160 and content["segments"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]


def test_the_pointer_names_the_segment_under_it(tab, scene):
    upload(tab, scene)
    changes(tab, lambda: tab.get_by_label("semantic", exact=True).click())
    tab.wait_for_timeout(300)  # the ids are unpacked
    picture = tab.locator(".viewer img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_selector(".tip:not([hidden])")
    assert tab.inner_text(".tip strong").startswith("label ") and "%" in tab.inner_text(".tip span")
    tip = tab.locator(".tip").bounding_box()
    assert tip["x"] >= 0 and tip["x"] + tip["width"] <= tab.viewport_size["width"]
    tab.mouse.move(2, 2)
    tab.wait_for_selector(".tip", state="hidden")


def test_examples_and_files_that_are_none(tab, tmp_path):
    tab.locator("#examples .gallery-item").first.click()
    tab.wait_for_selector(".viewer")
    (tmp_path / "broken.png").write_bytes(b"no image")
    tab.locator("#image button[aria-label='Remove Image'], #image button[title='Clear']").first.click()
    tab.wait_for_selector(".empty")
    tab.set_input_files("#image input[type=file]", tmp_path / "broken.png")
    tab.get_by_text("The file is no image that can be read here").first.wait_for()
    assert tab.locator(".viewer").count() == 0
