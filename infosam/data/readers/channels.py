"""Volumes that are kept one file for each channel, as nnU-Net has them: case_7_0000.nii.gz, case_7_0001.nii.gz, ..."""

from __future__ import annotations

import re

from infosam.data.formats.names import CHANNEL, NIFTI_SUFFIXES, has_suffix
from infosam.data.readers.series import Names


def with_channels(pictures: Names, drawn: Names) -> tuple[Names, tuple[str, ...]]:
    """The same names, but case_7 with its first channel instead of all channels of a mask case_7, and a note. Which one
    is shown is for whoever opens the file."""
    found: dict[str, list[str]] = {}
    for name, paths in pictures.items():
        match = re.fullmatch(CHANNEL, name)
        if match and match[1] in drawn and name not in drawn and has_suffix(paths[0], NIFTI_SUFFIXES):
            found.setdefault(match[1], []).append(name)
    several = {case: names for case, names in found.items() if len(names) > 1 and case not in pictures}
    if not several:
        return pictures, ()
    kept = dict(pictures)
    for case, names in several.items():
        kept[case] = kept[min(names)]
        for name in names:
            del kept[name]
    most = max(map(len, several.values()))
    note = f"volumes with up to {most} channels, a file each: --bands chooses, counted from 1; without it the first"
    return dict(sorted(kept.items())), (note,)
