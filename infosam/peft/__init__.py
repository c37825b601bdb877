"""Parameter-efficient ways to adapt SAM's image encoder, one file each, one table in `inject`."""
