"""Metrics counted image by image, exactly reducible over processes. Each folder also loads with `evaluate.load`."""

from importlib import import_module

_MODULES = {
    "MaskAveragePrecision": ".mask_average_precision.mask_average_precision",
    "MeanIoU": ".mean_iou.mean_iou",
    "PanopticQuality": ".panoptic_quality.panoptic_quality",
    "SemanticPanopticQuality": ".semantic_panoptic_quality.semantic_panoptic_quality",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
