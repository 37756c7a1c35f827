"""The web demo: `scripts/demo.py` serves it; the only part of the package that needs gradio."""
