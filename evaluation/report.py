"""What an evaluation leaves to read: results, report and which images are worst and best."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
import transformers

from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.scores import Scores
from maskformer.modeling.saved_folder import as_code, as_text, one_line
from maskformer.training.history import write_json

# Metrics of a whole dataset, in the order of a report, and their names.
TITLES = {
    "pq": "PQ",
    "pq_things": "PQ things",
    "pq_stuff": "PQ stuff",
    "sq": "SQ",
    "rq": "RQ",
    "mean_iou": "mIoU",
    "frequency_weighted_iou": "fwIoU",
    "mean_accuracy": "mean accuracy",
    "overall_accuracy": "pixel accuracy",
    "semantic_pq": "PQ of label maps",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
# Those of a label.
COLUMNS = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "iou": "IoU", "semantic_pq": "PQ of map", "ap": "AP"}
COUNTS = {"tp": "found", "fp": "spurious", "fn": "missed", "pixels": "pixels"}
DRAWN = 6  # of the worst images, and of the best


def write_report(folder: Path, results: dict, labels: LabelSet) -> None:
    """Writes `results.json` and `report.md` into `folder`.

    `results` are those of `results_of` with what else is known of the evaluation: `model`, `recipe`, `command`,
    `protocol`, `seconds`.
    """
    with replace_file(folder / "report.md") as temporary:
        temporary.write_text(report(results, labels), encoding="utf-8")
    write_json(folder / "results.json", results)


def report(results: dict, labels: LabelSet) -> str:
    """The evaluation as Markdown."""
    chosen = {title: results[key] for key, title in TITLES.items() if key in results}
    lines = [
        f"# {as_text(results['model'])}",
        "",
        f"{results['images']} images, in %:",
        "",
        *markdown(list(chosen), [[percent(value) for value in chosen.values()]]),
        "",
        "```bash",
        results["command"],
        "```",
        "",
        f"Recipe {as_code(results['recipe'])}; {results['seconds']:.0f} s for {results['images_now']} images,"
        f" {versions()}.",
        "",
        "## Protocol",
        "",
        *markdown(
            ["setting", "value"], [[as_code(name), as_code(value)] for name, value in results["protocol"].items()]
        ),
        "",
        "## Labels",
        "",
        *label_table(results["per_label"], labels),
        "",
        "![quality of each label](bars.png)",
        "",
        "![which labels are taken for which](confusion.png)",
    ]
    if results["worst"]:
        rows = [[as_code(row["image_id"]), percent(row["score"])] for row in results["worst"]]
        lines += ["", "## The worst images", "", *markdown(["image", results["worst"][0]["metric"]], rows)]
        lines += ["", "![the worst images](worst.png)"]
    return "\n".join([*lines, ""])


def label_table(per_label: dict[str, dict], labels: LabelSet) -> list[str]:
    """The lines of a Markdown table of the labels."""
    heads, rows = label_rows(per_label, labels)
    return markdown(heads, [[as_text(name), *cells] for name, *cells in rows])


def label_rows(per_label: dict[str, dict], labels: LabelSet) -> tuple[list[str], list[list[str]]]:
    """Heads, and a row for each label, in the order of the label set."""
    keys = [key for key in COLUMNS if any(key in row for row in per_label.values())]
    counts = {key: head for key, head in COUNTS.items() if all(key in row for row in per_label.values())}
    heads = ["label", "kind", *(COLUMNS[key] for key in keys), *counts.values()]
    rows = []
    for (name, row), thing in zip(per_label.items(), labels.is_thing, strict=True):
        absent = "tp" in counts and not row["tp"] + row["fp"] + row["fn"]
        numbers = ["–" if absent and key in ("pq", "sq", "rq") else percent(row.get(key)) for key in keys]
        rows.append([name, "thing" if thing else "stuff", *numbers, *(f"{row[key]:,}" for key in counts)])
    return heads, rows


def markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def percent(value: float | None) -> str:
    """A fraction in percent; a dash where there is none."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def versions() -> str:
    """What the numbers were computed with."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"


def results_of(scores: Scores) -> dict:
    """The summary of `scores`, with the true `pixels` of each label, and the `worst` and `best` images.

    Of few images the worst are shown; none is among the best too.
    """
    summary = scores.summary()
    for row, pixels in zip(summary["per_label"].values(), scores.confusion.sum(axis=1).tolist(), strict=True):
        row["pixels"] = pixels
    ranked = ranked_images(scores)
    return summary | {"worst": ranked[:DRAWN], "best": ranked[DRAWN:][::-1][:DRAWN]}


def ranked_images(scores: Scores) -> list[dict]:
    """Index, id and score of the images, lowest scores first; those without a score are left out."""
    metric = "PQ" if "panoptic" in scores.metrics else "mIoU"
    scored = [
        {"index": index, "image_id": image_id, "metric": metric, "score": score}
        for index, (image_id, score) in scores.images.items()
        if score == score
    ]
    return sorted(scored, key=lambda row: (row["score"], row["index"]))
