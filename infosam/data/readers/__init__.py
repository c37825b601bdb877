"""The ways in which people keep images and masks: one file per way, all behind `contract.Reader`, chosen by `table`."""
