"""The sections of a recipe: what can be set, and what it is if nobody does.

Types are checked when a section is made; that needs annotations that are types, not text (`from __future__`).
"""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from maskformer.data.augmentation import Augmentation
from maskformer.data.shapes import SMALLEST_SCENE

METRICS = ("pq", "pq_things", "pq_stuff", "mean_iou", "semantic_pq", "ap")
TASKS = ("semantic", "panoptic", "instance")
# Settings of the section `data` that only training reads.
AUGMENTATION = {"keep_emptied_segments", *Augmentation.__dataclass_fields__}
# Arguments of `post_process_panoptic_segmentation`, and the settings of `EvaluationArguments` that they are.
PROTOCOL = {
    "threshold": "threshold",
    "mask_threshold": "mask_threshold",
    "overlap_mask_area_threshold": "overlap_mask_area_threshold",
    "method": "panoptic_method",
}


def at_least(section, low: float, *names: str) -> None:
    """Raises `ValueError` for a value below `low`."""
    for name in names:
        if not getattr(section, name) >= low:  # nor is nan
            raise ValueError(f"{name} must be at least {low}, not {getattr(section, name)}")


def within(section, low: float, high: float, *names: str) -> None:
    """Raises `ValueError` for a value outside of `low` to `high`."""
    for name in names:
        if not low <= getattr(section, name) <= high:
            raise ValueError(f"{name} must lie in {low} to {high}, not {getattr(section, name)}")


def positive(section, *names: str) -> None:
    """Raises `ValueError` for a value that is not above 0; None is no value."""
    for name in names:
        value = getattr(section, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")


@strict
@dataclass
class DataArguments:
    """Where images and labels come from, and how training images are augmented.

    Args:
        source: `shapes` (generated scenes), `panoptic_folder` (COCO format), `semantic_folder` (images and labels), or
            the dataset of the paper that a recipe is about.
        data_path: folder of a dataset that holds all its splits, as benchmarks are downloaded or `prepare_dataset.py`
            leaves them.
        train_path: folder of the training split.
        validation_path: folder of the validation split.
        dataset: name of a dataset on the Hub, or a folder laid out as such, for `hub`.
        dataset_config: its configuration, where it has several.
        dataset_revision: its branch, tag or commit.
        train_split: what it calls the training split; `train[:90%]` is a part of one.
        validation_split: what it calls the validation split.
        image_column: its column of images.
        label_column: its column of label images.
        label_kind: what these are: `semantic` (the label of a pixel), `panoptic` (ids of the segments that
            `segments_column` lists) or `instance` (label in red, instance in green).
        segments_column: its column of lists of {id, category_id, iscrowd}, where labels are `panoptic`.
        id_column: its column of image ids, if it is not called `image_id`, `file_name` or `id`; the `image_column`
            where ids are the names of the image files.
        label_names: JSON file of its label names, or a label set such as `ade20k-150`, if it does not bring them.
        streaming: read the training split shard by shard, for prepared data that are larger than the disk's cache, and
            for datasets on the Hub that are not to be downloaded first.
        train_scenes: number of training scenes, for `shapes`.
        validation_scenes: number of validation scenes, for `shapes`.
        scene_size: their sides in pixels.
        ignore_index: value of void pixels in label files, and in the labels of a per-pixel model.
        reduce_labels: the label files count from 1 and 0 is void, for `semantic_folder` and `hub`.
        fit_image_size: let the sizes of training and test shrink to that of the training images.
        shortest_edges: sizes in pixels that the shortest edge of a training image is resized to, one at random.
        longest_edge: bound of the longest edge after that.
        crop_size: height and width of a random crop; smaller images are padded to it.
        detr_crop: shortest and longest side of DETR's random crop, which half of the images get before they are resized
            (384 and 600 in the official training on COCO panoptic).
        keep_emptied_segments: learn segments that a crop has emptied, as empty masks, as the official training on
            panoptic data does.
        single_category_max_area: share of a crop that one label may cover.
        color_jitter: SSD's colour jitter.
        stray_light: half of the images get a patch of light, for images with a dark ground.
        horizontal_flip: with probability a half.
        vertical_flip: with probability a half.
        rotate: by a random multiple of 90 degrees.
    """

    source: str = "shapes"
    data_path: str | None = None
    train_path: str | None = None
    validation_path: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_revision: str | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    image_column: str = "image"
    label_column: str = "label"
    label_kind: str = "semantic"
    segments_column: str = "segments_info"
    id_column: str | None = None
    label_names: str | None = None
    streaming: bool = False
    train_scenes: int = 4000
    validation_scenes: int = 100
    scene_size: int = 128
    ignore_index: int | None = 255
    reduce_labels: bool = False
    fit_image_size: bool = False
    shortest_edges: list[int] = field(default_factory=list)
    longest_edge: int = 4096
    crop_size: list[int] | None = None
    detr_crop: list[int] | None = None
    keep_emptied_segments: bool = False
    single_category_max_area: float | int = 1.0
    color_jitter: bool = False
    stray_light: bool = False
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotate: bool = False

    def validate_sizes(self):
        """Refuses sizes and counts of nothing."""
        at_least(self, 1, "train_scenes", "validation_scenes", "longest_edge")
        at_least(self, SMALLEST_SCENE, "scene_size")
        if self.crop_size is not None and (len(self.crop_size) != 2 or min(self.crop_size) < 1):
            raise ValueError(f"crop_size must be a height and a width, as [128, 128], not {self.crop_size}")
        crop = self.detr_crop
        if crop is not None and (len(crop) != 2 or not 1 <= crop[0] <= crop[1]):
            raise ValueError(f"detr_crop must be a shortest and a longest side, as [384, 600], not {crop}")
        if min(self.shortest_edges, default=1) < 1:
            raise ValueError(f"shortest_edges must be at least 1, not {self.shortest_edges}")

    def build_augmentation(self) -> Augmentation:
        """The training augmentation these arguments describe."""
        return Augmentation(**{name: getattr(self, name) for name in Augmentation.__dataclass_fields__})


@strict
@dataclass
class TrainingArguments:
    """The optimisation (section 4.1) and the run.

    Args:
        backbone_weights: file of pre-trained backbone weights (detectron2's, torchvision's, Swin's or timm's),
            `package:NAME/PATH` inside an installed package, or `timm/NAME` on the Hub.
        initial_model: folder, or name on the Hub, of a whole model to start from; the recipe's `model` and
            `image_processor` change its settings, and weights start anew where the number of labels differs.
        freeze_backbone: the backbone keeps its weights.
        max_steps: number of steps.
        max_minutes: the run ends after these minutes, if not earlier; the learning rate follows whatever is nearer to
            its end.
        batch_size: images a step, those of all processes together.
        accumulation_steps: parts that the images of a process are divided into, one after another, to save memory; the
            step stays the same.
        gradient_checkpointing: compute activations again for the backward pass instead of keeping them.
        compile: compile the network (`torch.compile`), which takes minutes at first.
        learning_rate: at its peak.
        backbone_multiplier: factor of the backbone's learning rate; 0 keeps its weights.
        weight_decay: of AdamW; normalisations, embeddings and relative position biases have none.
        warmup_steps: steps of linear warm-up.
        warmup_factor: share of the learning rate that it starts from.
        poly_power: power of the polynomial decay to zero.
        decay_steps: the rate is multiplied by `decay_factor` at each of these steps instead of decaying polynomially.
        decay_factor: that factor.
        clip_norm: largest norm of the whole gradient.
        eval_steps: steps between evaluations; there is one at the end in any case.
        save_steps: steps between checkpoints.
        keep_checkpoints: how many of them are kept.
        log_steps: steps between rows of the history.
        report_to: trackers that get the same numbers, by the names that accelerate has for them.
        dataloader_workers: processes that load data.
        seed: decides initial weights, order, augmentation and dropout.
    """

    backbone_weights: str | None = None
    initial_model: str | None = None
    freeze_backbone: bool = False
    max_steps: int = 160000
    max_minutes: float | int | None = None
    batch_size: int = 16
    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    learning_rate: float | int = 1e-4
    backbone_multiplier: float | int = 1.0
    weight_decay: float | int = 1e-4
    warmup_steps: int = 0
    warmup_factor: float | int = 1.0
    poly_power: float | int = 0.9
    decay_steps: list[int] = field(default_factory=list)
    decay_factor: float | int = 0.1
    clip_norm: float | int = 0.01
    eval_steps: int = 5000
    save_steps: int = 5000
    keep_checkpoints: int = 1
    log_steps: int = 20
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    dataloader_workers: int = 2
    seed: int = 0

    def validate_counts(self):
        """Refuses counts below 1, times of nothing, and seeds that generators do not take."""
        at_least(self, 1, "max_steps", "batch_size", "accumulation_steps", "eval_steps", "save_steps")
        at_least(self, 1, "keep_checkpoints", "log_steps")
        positive(self, "max_minutes")
        within(self, 0, 2**31 - 1, "seed", "dataloader_workers", "warmup_steps")

    def validate_rates(self):
        """Refuses what would train away from the minimum, or not at all."""
        positive(self, "learning_rate", "clip_norm")
        at_least(self, 0, "backbone_multiplier", "weight_decay", "poly_power", "decay_factor")
        within(self, 0, 1, "warmup_factor")
        steps = self.decay_steps
        if any(later <= earlier for earlier, later in zip([0, *steps], steps, strict=False)):
            raise ValueError(f"decay_steps must be numbers of steps that increase, as [60000, 80000], not {steps}")


@strict
@dataclass
class EvaluationArguments:
    """The test protocol.

    Args:
        task: what is measured: `semantic` (mean IoU, and the panoptic quality of label maps), `panoptic` (and the
            panoptic quality of segments) or `instance` (and average precision, which is measured in any case where all
            labels are things).
        eval_batch_size: images of one canvas size that are predicted at once.
        threshold: class probability above which a query becomes a panoptic segment.
        mask_threshold: mask probability above which a pixel counts to the original area of a segment.
        overlap_mask_area_threshold: share of that area that must be left for a segment to stay.
        panoptic_method: `maskformer`, or `detr` for DETR's panoptic post-processing.
        best_metric: the metric by which the best checkpoint is chosen, `pq`, `pq_things`, `pq_stuff`, `mean_iou`,
            `semantic_pq` or `ap`.
        tta: test-time augmentation, the columns "ms" (multi scale) of the paper; semantic answers only.
        tta_shortest_edges: sizes in pixels of test-time augmentation.
        tta_longest_edge: bound of the longest edge after that.
        tta_flip: every size once more, flipped horizontally.
        sliding_window: height and width, in pixels of the image as it is resized for the test, of windows that are
            answered one by one and averaged; semantic answers only.
        stride: rows and columns between windows; by default two thirds of their size.
    """

    task: str = "panoptic"
    eval_batch_size: int = 1
    threshold: float | int = 0.8
    mask_threshold: float | int = 0.5
    overlap_mask_area_threshold: float | int = 0.8
    panoptic_method: str = "maskformer"
    best_metric: str = "pq"
    tta: bool = False
    tta_shortest_edges: list[int] = field(default_factory=list)
    tta_longest_edge: int = 4096
    tta_flip: bool = True
    sliding_window: list[int] | None = None
    stride: list[int] | None = None

    def validate_protocol(self):
        """Refuses metrics and methods that do not exist, batches of nothing and thresholds that are no shares."""
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {self.task!r}")
        at_least(self, 1, "eval_batch_size")
        within(self, 0, 1, "threshold", "mask_threshold", "overlap_mask_area_threshold")
        if self.panoptic_method not in ("maskformer", "detr"):
            raise ValueError(f"panoptic_method must be maskformer or detr, not {self.panoptic_method!r}")
        if self.best_metric not in METRICS:
            raise ValueError(f"best_metric must be one of {', '.join(METRICS)}, not {self.best_metric!r}")

    def validate_averages(self):
        """Refuses test-time augmentation without sizes, and windows that leave gaps."""
        if self.tta and not self.tta_shortest_edges:
            raise ValueError("tta needs tta_shortest_edges, as [384, 512, 640], which this recipe has none of")
        if min(self.tta_shortest_edges, default=1) < 1:
            raise ValueError(f"tta_shortest_edges must be at least 1, not {self.tta_shortest_edges}")
        at_least(self, 1, "tta_longest_edge")
        if self.tta and self.sliding_window is not None:
            raise ValueError("tta and sliding_window exclude each other")
        if self.sliding_window is None:
            if self.stride is not None:
                raise ValueError("stride has no effect without sliding_window")
            return
        pairs = {"sliding_window": self.sliding_window, "stride": self.window_stride()}
        for name, pair in pairs.items():
            if len(pair) != 2 or min(pair) < 1:
                raise ValueError(f"{name} must be two numbers of pixels, rows and columns, as [512, 512], not {pair}")
        if any(step > edge for step, edge in zip(pairs["stride"], self.sliding_window, strict=True)):
            raise ValueError(f"the stride {self.stride} leaves gaps between windows of {self.sliding_window}")

    def window_stride(self) -> tuple[int, ...]:
        """Rows and columns between the windows of `sliding_window`."""
        return tuple(self.stride or (max(1, 2 * edge // 3) for edge in self.sliding_window))

    def protocol(self) -> dict[str, float | int | str]:
        """The arguments of an image processor's `post_process_panoptic_segmentation` that this protocol tests with."""
        return {argument: getattr(self, name) for argument, name in PROTOCOL.items()}
