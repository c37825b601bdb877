"""Files that are more than one 8-bit picture: scenes with many bands, volumes, series, arrays. `parts` makes pairs of
pictures and masks of them; one file per format gives it their slices, all behind `contract.Stack`."""
