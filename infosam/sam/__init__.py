"""SAM from segment_anything's own classes: sizes, weights, and a typed batched forward."""
