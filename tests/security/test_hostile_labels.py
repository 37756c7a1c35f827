"""Names of labels and images come from data: in cards, reports, pages and pictures they are text, and nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image, ImageChops

from folders import edit_json, write_panoptic_folder
from maskformer import MaskFormerUniversalConfig
from maskformer.convert import model_card as converted
from maskformer.data.label_set import LabelSet
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.validation import inspect
from maskformer.demo.answers import Answer
from maskformer.demo.viewer import draw, legend_html, viewer_html
from maskformer.evaluation.charts import draw_bars, draw_confusion
from maskformer.evaluation.report import markdown, write_report
from maskformer.image_processing.legend import Entry, with_legend
from maskformer.image_processing.visualization import draw_segments
from maskformer.modeling.saved_folder import as_code, as_text, write_model_card
from maskformer.training.dataset_pictures import draw_contact_sheet, draw_histogram

NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "---\nlicense: mit\n---",
    "a: b",
    "`code` and ```",
    "[link](javascript:alert(1)) ![x](http://example.com/x.png)",
    "# heading",
    "a | b | c",
    "=HYPERLINK(1)",
    "two\r\nlines\tand more",
    "$x^{$ \\frac",
    "{name} {0} %s",
    "\x1b[2J\x07bell",
    "*bold* _it_ __all__ &lt;",
    "道路 \u202e",
    "- item",
    "1. item",
    "no",
]
LABELS = LabelSet.from_categories([{"id": i, "name": name, "isthing": i % 2} for i, name in enumerate(NAMES)])
LICENSES = ["cc-by-nc-4.0", "mit\npipeline_tag: text-generation", "a: b", "no", "1.0", "--- x", "`x`", "<b>", "'", "é"]


def in_one_line(text: str) -> str:
    """A name as it is written: whitespace and characters that control a terminal are spaces."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())


def rendered(text: str) -> str:
    """Markdown without its backslashes, as it is read."""
    return re.sub(r"\\([!-/:-@[-`{-~])", r"\1", text)


@pytest.mark.parametrize("name", NAMES)
def test_text_of_markdown_reads_as_it_was_and_holds_no_markup(name):
    text = as_text(name)
    assert rendered(text) == in_one_line(name) and "\n" not in text
    assert not re.search(r"(?<!\\)[<`*\[\]]", text) and not re.match(r"[-#+=~]|\d+\.", text)


@pytest.mark.parametrize("name", NAMES)
def test_code_of_markdown_ends_where_it_should(name):
    code = as_code(name)
    fence = re.match("`+", code)[0]
    assert code.endswith(fence) and fence not in code[len(fence) : -len(fence)]
    assert code.removeprefix(fence).removesuffix(fence).strip() == in_one_line(name)


@pytest.mark.parametrize("licence", LICENSES)
def test_the_card_of_a_model(tmp_path, licence):
    config = MaskFormerUniversalConfig(id2label=dict(enumerate(NAMES)), weights_license=licence)
    write_model_card(config, tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---")[1] if "---" not in licence else text.split("\n---\n")[0][4:])
    expected = {"library_name": "transformers", "pipeline_tag": "image-segmentation", "tags": ["maskformer"]}
    assert header == expected | {"license": licence}
    assert ModelCard(text).data.to_dict() == expected | {"license": licence}
    last = text.rstrip("\n").splitlines()[-1]
    assert rendered(last) == ", ".join(map(in_one_line, NAMES)) and "<script" not in text.replace("\\<", "")
    config.save_pretrained(tmp_path)
    assert list(MaskFormerUniversalConfig.from_pretrained(tmp_path).id2label.values()) == NAMES


def test_the_card_of_converted_weights(tmp_path):
    for name in ("a`b|c.pkl", "x\n---\n# y.pth", "<script>.pkl"):
        rows = converted.source_rows(tmp_path / name, "0" * 64, recipe=as_code("a|b"))
        card = converted.model_card(MaskFormerUniversalConfig(), rows, converted.SAME_LICENSE)
        lines = [line for line in card.splitlines() if line.startswith("|")]
        assert len(lines) == 5 and card.count("\n---\n") == 1
        assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
        assert "`<script>.pkl`" in card or "<script>" not in card


def results() -> dict:
    """The results of an evaluation, of which only names matter."""
    row = {"pq": 0.5, "sq": 0.75, "rq": 0.6, "iou": 0.25, "tp": 4, "fp": 3, "fn": 1, "pixels": 99}
    worst = [{"index": i, "image_id": name, "metric": "PQ", "score": 0.5} for i, name in enumerate(NAMES)]
    words = {"model": NAMES[2], "recipe": NAMES[4], "command": "python", "protocol": {"a|b": "`c`"}, "seconds": 1.0}
    return {"pq": 0.5, "images": 2, "images_now": 2, "per_label": dict.fromkeys(NAMES, row), "worst": worst} | words


def test_the_report(tmp_path):
    write_report(tmp_path, results(), LABELS)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Labels") + 4
    table = lines[start : start + len(NAMES)]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"\|", lines[start - 1]))}
    assert [rendered(line)[2:].partition(" | stuff")[0].partition(" | thing")[0] for line in table] == [
        in_one_line(name) for name in NAMES
    ]
    assert [line for line in lines if line.startswith("# ")] == ["# " + as_text(NAMES[2])]
    assert not any("<script" in line.replace("\\<", "").replace("`<", "") for line in lines)
    assert list(json.loads((tmp_path / "results.json").read_text())["per_label"]) == NAMES


def test_a_cell_of_a_table_is_one_line():
    assert markdown(["a"], [["b\n| c\x1b"]])[-1] == "| b \\| c |"


class Elements(HTMLParser):
    """The elements of a page and the names of their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def page_of(names: list[str]) -> str:
    """What the web demo shows of an answer with these labels, in stripes."""
    rows, colors = 16 * len(names), np.full((len(names), 3), 99)
    segmentation = np.arange(1, len(names) + 1, dtype=np.int32).repeat(16)[:, None].repeat(500, axis=1)  # (H, 500)
    segments = [{"id": i + 1, "label_id": i, "label": name, "area": 8000} for i, name in enumerate(names)]
    answer = Answer(segmentation, segments)
    picture = draw(np.zeros((rows, 500, 3), np.uint8), answer, names, colors)
    return viewer_html(picture, answer, "caption") + legend_html(answer, frozenset(), colors)


def test_the_page_of_the_demo():
    hostile, plain = (Elements(page_of(names)).found for names in (NAMES, [f"label {i}" for i in range(len(NAMES))]))
    assert hostile == plain


def test_pictures_are_drawn_whatever_labels_are_called(tmp_path):
    white, whole = Image.new("RGB", (400, 90), "white"), np.ones((90, 400), np.int32)
    for index, name in enumerate(NAMES):
        panoptic = {"segmentation": whole, "segments_info": [{"id": 1, "label_id": index}]}
        named, unnamed = (draw_segments(white, panoptic, NAMES, labels=labels) for labels in (True, False))
        assert ImageChops.difference(named, unnamed).getbbox() is not None
        assert with_legend(white, [Entry(name, (1, 2, 3), 2, 400)], 36_000).width > 400
    rows = results()["per_label"]
    draw_bars(rows, LABELS, tmp_path / "bars.png")
    draw_confusion(np.ones((len(NAMES), len(NAMES) + 1), np.int64), LABELS, tmp_path / "confusion.png")
    assert {path.name for path in tmp_path.iterdir()} == {"bars.png", "confusion.png"}


def test_a_dataset_is_drawn_whatever_its_labels_are_called(tmp_path):
    def rename(content: dict) -> None:
        for category, name in zip(content["categories"], NAMES[2:4] + NAMES[9:], strict=False):
            category["name"] = name

    edit_json(write_panoptic_folder(tmp_path / "data", count=2) / "panoptic.json", rename)
    source = load_panoptic_folder(tmp_path / "data")
    draw_histogram(inspect(source), tmp_path / "histogram.png")
    assert draw_contact_sheet(source, tmp_path / "sheet.png")
