"""One folder in which each mask lies beside its image: 104_sat.jpg and 104_mask.png."""

from __future__ import annotations

import re
from pathlib import Path

from infosam.data.formats.names import is_readable
from infosam.data.pairs import ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.readers.folders import matched, pictures_in

MASK_NAME = re.compile(
    r"(^|[_\-. ])(mask|masks|seg|segmentation|label|labels|gt|groundtruth|annotation)([_\-. ]|\d*$)", re.I
)


class Beside:
    """Images and masks in one folder, told apart by a word in the names of the masks."""

    layout = "one folder with images and masks side by side, such as 104_sat.jpg and 104_mask.png"

    def fits(self, source: Path) -> bool:
        if not source.is_dir():
            return False
        marks = [MASK_NAME.search(path.stem) is not None for path in source.iterdir() if is_readable(path)]
        return 0 < sum(marks) < len(marks)

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        names = pictures_in(source, problems)
        drawn = {name: paths for name, paths in names.items() if MASK_NAME.search(Path(name).name)}
        pictures = {name: paths for name, paths in names.items() if name not in drawn}
        listed, rule = matched(source, source, pictures, drawn, None, problems)
        return Listing(root=source, listed=listed, notes=(f"names matched by a rule: {rule.describe()}",))
