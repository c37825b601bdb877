"""Files that are not read, with what to do: nobody should have to guess why a folder looks empty."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from pathlib import Path

LOOKED_AT = 200  # folders
TEXTS, ANNOTATIONS = (".xml", ".txt", ".json"), 3  # fewer of these are something else, such as a licence
CONVERTED = {
    **dict.fromkeys((".nrrd", ".mha", ".mhd", ".mgz", ".mgh", ".img", ".mnc"), "convert them to NIfTI (.nii.gz)"),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".oib", ".svs", ".ndpi", ".mrxs"), "export them as TIFF"),
    **dict.fromkeys((".h5", ".hdf5", ".mat", ".pt", ".pkl", ".tfrecord"), "save their arrays as npy or npz"),
    **dict.fromkeys((".vrt", ".nc", ".grib"), "convert them to GeoTIFF"),
    **dict.fromkeys((".mp4", ".avi", ".mov"), "save their frames as pictures"),
    **dict.fromkeys((".heic", ".avif", ".psd", ".svg"), "save them as PNG"),
    **dict.fromkeys((".geojson", ".shp", ".gpkg", ".kml"), "burn their shapes into masks, with gdal_rasterize"),
    **dict.fromkeys(TEXTS, "convert annotations to COCO JSON, or draw them as masks"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "unpack them"),
}


def not_read(source: Path) -> str:
    """The commonest ending of files below a folder that nobody reads, with advice; empty if there are none."""
    endings: Counter[str] = Counter()
    for _, folders, files in islice(os.walk(source), LOOKED_AT):
        folders.sort()
        endings.update(Path(name).suffix.lower() for name in files if not name.startswith("."))
    foreign = [
        (ending, amount)
        for ending, amount in endings.most_common()
        if ending in CONVERTED and (amount >= ANNOTATIONS or ending not in TEXTS)
    ]
    if not foreign:
        return ""
    ending, amount = foreign[0]
    return f"; its files *{ending} ({amount}) are not read: {CONVERTED[ending]}"
