"""From a user's images and masks to tensors on SAM's canvas. Knows no model."""
