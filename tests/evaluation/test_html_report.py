"""The page of a run: whole, of one file, with nothing in it but what was measured, whatever data are called."""

from __future__ import annotations

import base64
import html
import io
import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from evaluations import LABELS, make_example, make_processor, make_source, shifted_answer
from helpers import with_segments
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.html_report import curve_urls, example_urls, write_html
from maskformer.evaluation.report import results_of
from maskformer.evaluation.scores import Scores
from maskformer.recipes import load_recipe
from maskformer.recipes.arguments import EvaluationArguments
from maskformer.training.recorder import Recorder, products

ATTACK = "<script>alert(1)</script>"
LINKS = ("src", "href", "srcset", "action", "data")  # attributes by which a page loads something
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


class Reader(HTMLParser):
    """The page as a browser takes it apart: elements with their attributes, rows of cells, and all text."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    @property
    def scripts(self) -> int:
        return sum(tag == "script" for tag, _ in self.elements)


def scores_of(count: int, labels: LabelSet = LABELS) -> Scores:
    """Scores of `count` images, which are answered worse from one to the next."""
    scores = Scores(labels, {"semantic", "panoptic"})
    for index in range(count):
        example = make_example(0) | {"index": index, "image_id": f"image {index}"}
        scores.add(example, shifted_answer(example, index))
    return scores


def written(folder, title="demo", labels=LABELS, settings=None, pictures=None, count=3, **changes) -> str:
    """The page of `count` images."""
    results = results_of(scores_of(count, labels)) | changes
    path = folder / "report.html"
    write_html(path, title, ["30 steps"], results, labels, settings or {}, [], pictures or {})
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_worst_and_the_best_have_no_image_in_common():
    results = results_of(scores_of(14))
    worst, best = ([row["score"] for row in results[name]] for name in ("worst", "best"))
    assert worst == sorted(worst) and best == sorted(best, reverse=True) and worst[-1] <= best[-1]
    assert results["best"][0] == {"index": 0, "image_id": "image 0", "metric": "PQ", "score": 1.0}
    assert len({row["index"] for row in results["worst"] + results["best"]}) == 12
    sizes = [(len(few["worst"]), len(few["best"])) for few in (results_of(scores_of(n)) for n in (1, 6, 7))]
    assert sizes == [(1, 0), (6, 0), (6, 1)]


def test_pixels_of_labels_are_those_of_the_truth():
    example = make_example(0)
    expected = [0] * 4
    for info in example["segments_info"]:
        expected[info["label_id"]] += int((example["segmentation"] == info["id"]).sum())
    per_label = results_of(scores_of(2))["per_label"]
    assert [row["pixels"] for row in per_label.values()] == [2 * pixels for pixels in expected]


def test_the_table_has_the_numbers_of_each_label(tmp_path):
    row = {"pq": 0.5, "sq": 0.75, "rq": 2 / 3, "iou": 0.25, "tp": 4, "fp": 3, "fn": 1, "pixels": 1234567}
    absent = {"pq": 0.0, "sq": 0.0, "rq": 0.0, "iou": float("nan"), "tp": 0, "fp": 0, "fn": 0, "pixels": 0}
    per_label = dict(zip(LABELS.names, [row, absent, row, row], strict=True))
    reader = Reader(written(tmp_path, per_label=per_label, pq=0.123))
    heads = ["label", "kind", "PQ", "SQ", "RQ", "IoU", "found", "spurious", "missed", "pixels"]
    assert reader.rows[0] == heads and len(reader.rows) == 5
    assert reader.rows[1] == ["label 0", "stuff", "50.0", "75.0", "66.7", "25.0", "4", "3", "1", "1,234,567"]
    assert reader.rows[2] == ["label 1", "stuff", "–", "–", "–", "–", "0", "0", "0", "0"]
    assert "12.3" in reader.words and sum(tag == "button" for tag, _ in reader.elements) == len(heads)


def test_what_data_say_is_text(tmp_path):
    """Of titles, labels, images, settings: none adds an element or an attribute to the page."""
    names = [ATTACK, '" onload="alert(1)', "a & b", "é道路"]
    labels = LabelSet.from_categories([{"id": i, "name": name, "isthing": 1} for i, name in enumerate(names)])
    worst = [{"index": 0, "image_id": ATTACK, "metric": "PQ", "score": 0.5}]
    pictures, settings = {0: [DOT] * 3}, {"data": {ATTACK: ATTACK}, ATTACK: ATTACK}
    page = written(tmp_path, ATTACK, labels, settings, pictures, worst=worst)
    reader, plain = Reader(page), Reader(written(tmp_path, pictures=pictures, settings={"a": {"b": "c"}, "d": "e"}))
    assert ATTACK not in page and page.count(html.escape(ATTACK)) >= 7
    assert reader.scripts == plain.scripts == 1
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in plain.elements]
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert [row[0] for row in reader.rows[1:5]] == names


def test_names_that_are_no_text_are_written_all_the_same(tmp_path):
    worst = [{"index": 0, "image_id": "caf\udce9", "metric": "PQ", "score": 0.5}]
    assert r"caf\udce9 · PQ 50.0" in written(tmp_path, worst=worst, pictures={0: [DOT] * 3})


def test_the_page_loads_nothing_and_suits_small_and_dark_screens(tmp_path):
    page = written(tmp_path, pictures={index: [DOT] * 3 for index in range(3)})
    reader = Reader(page)
    sources = [value for _, attributes in reader.elements for name, value in attributes.items() if name in LINKS]
    assert len(sources) == 9 and all(source.startswith("data:") for source in sources)
    assert "url(" not in page and "@import" not in page and "://" not in page
    metas = [attributes for tag, attributes in reader.elements if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert any(meta.get("content", "").startswith("default-src 'none'; img-src data:;") for meta in metas)
    assert "prefers-color-scheme: dark" in page


def test_an_error_leaves_the_earlier_page(tmp_path):
    earlier = written(tmp_path)
    with pytest.raises(KeyError):
        write_html(tmp_path / "report.html", "x", [], {"images": 1}, LABELS, {}, [], {})
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == earlier


def test_curves_are_three_pictures_and_none_without_a_history(tmp_path):
    history = tmp_path / "history.jsonl"
    assert curve_urls(history) == []
    rows = [{"step": 1, "loss": 2.0, "learning_rate": 0.1}, {"step": 2, "loss": 1.0, "learning_rate": 0.1}]
    history.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": 2, "mean_iou": 0.5}]) + '{"step": 3')
    urls = curve_urls(history)
    assert len(urls) == 3
    for url in urls:
        kind, content = url.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_examples_are_image_truth_and_prediction(tiny_model, task):
    source = make_source([(40, 56), (1, 1), (1, 3000)])
    results = {"worst": [{"index": 2}, {"index": 0}], "best": [{"index": 1}]}
    model, arguments = with_segments(tiny_model()), EvaluationArguments(task=task)
    urls = example_urls(model, make_processor(), source, arguments, results)
    assert list(urls) == [2, 0, 1] and all(len(pictures) == 3 for pictures in urls.values())
    first = Image.open(io.BytesIO(base64.b64decode(urls[0][0].split(",")[1])))
    assert first.size == (56, 40)
    assert np.abs(np.asarray(first, float) - source[0]["image"]).mean() < 10  # noise, as a JPEG


@pytest.mark.parametrize("main", [True, False])
def test_a_run_writes_the_page_of_its_last_evaluation_once(tiny_model, tmp_path, monkeypatch, main):
    """By the main process; the other metrics go to the history, without labels and images."""
    accelerator = Accelerator()
    monkeypatch.setattr(type(accelerator), "is_main_process", main)
    recipe = load_recipe("shapes/demo")
    recorder = Recorder(accelerator, recipe, make_processor(), make_source(), tmp_path, False)
    recorder.best = {"pq": 2.0, "pq_things": 2.0, "pq_stuff": 2.0, "mean_iou": 2.0}  # better than any
    metrics = recorder.evaluate(with_segments(tiny_model()), 7)
    assert not metrics.keys() & {"per_label", "worst", "best"} and metrics["images"] == 5
    if not main:
        assert not any(tmp_path.iterdir())
        return
    assert tmp_path / "report.html" in products(tmp_path)
    reader = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join(reader.words)
    assert "shapes/demo" in text and "7 steps" in text and "best model: PQ 200.0" in text and "label 3" in text
    assert ["learning_rate", str(recipe.training.learning_rate)] in reader.rows
    assert sum(tag == "img" for tag, _ in reader.elements) == 3 + 3 * 5  # curves, and five images
