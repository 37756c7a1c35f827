"""Average precision of instance masks."""
