"""Images into batches, and model outputs into semantic, instance and panoptic answers."""
