from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from infosam.data import transforms
from infosam.data.dataset import SegmentationDataset, collate
from infosam.data.store import Sample, Store, import_dataset, open_dataset
from infosam.errors import DataError

CANVAS = 48


@pytest.fixture
def store(csv_set: Path, tmp_path: Path) -> Store:
    import_dataset(csv_set, domain="squares", out=tmp_path / "set")
    return open_dataset(tmp_path / "set")


def test_an_item_is_the_sample_on_the_canvas(store: Store) -> None:
    dataset = SegmentationDataset(store, "train", CANVAS)
    assert len(dataset) == 4
    item, sample = dataset[2], dataset.sample(2)
    assert (item.id, item.index) == (sample.id, 2) == ("train_2", 2)
    assert (item.original_hw, item.resized_hw) == ((24, 32), (36, 48))
    assert torch.equal(item.image, transforms.prepare_image(sample.image, CANVAS))
    assert torch.equal(item.mask, transforms.prepare_mask(sample.mask, CANVAS))
    assert torch.equal(item.valid, transforms.valid_mask((36, 48), CANVAS))
    assert not item.image[:, ~item.valid].any()
    assert not item.mask[~item.valid].any()


def test_cached_items_are_equal_and_cannot_be_spoilt(store: Store) -> None:
    dataset = SegmentationDataset(store, "train", CANVAS)
    first = dataset[0]
    image = first.image.clone()
    first.image.zero_()
    first.mask.fill_(True)
    again = dataset[0]
    assert torch.equal(again.image, image)
    assert not again.mask.all()


class CountingStore(Store):
    reads = 0
    truths = 0

    def read(self, split: str, index: int) -> Sample:  # type: ignore[override]
        self.reads += 1
        return super().read(split, index)  # type: ignore[arg-type]

    def truth(self, split: str, index: int) -> NDArray[np.bool_]:  # type: ignore[override]
        self.truths += 1
        return super().truth(split, index)  # type: ignore[arg-type]


@pytest.mark.parametrize(("cache_mib", "reads"), [(1024, 4), (0, 12)])
def test_images_are_decoded_once_while_the_cache_has_room(store: Store, cache_mib: int, reads: int) -> None:
    counting = CountingStore(store.card.path)
    dataset = SegmentationDataset(counting, "train", CANVAS, cache_mib=cache_mib)
    for _ in range(3):
        for index in range(len(dataset)):
            dataset[index]
    assert counting.reads == reads


@pytest.mark.parametrize(("cache_mib", "truths"), [(1024, 4), (0, 12)])
def test_masks_at_original_size_are_decoded_once_and_without_their_images(
    store: Store, cache_mib: int, truths: int
) -> None:
    counting = CountingStore(store.card.path)
    dataset = SegmentationDataset(counting, "train", CANVAS, cache_mib=cache_mib)
    for _ in range(3):
        for index in range(len(dataset)):
            assert np.array_equal(dataset.truth(index), store.read("train", index).mask)
    assert (counting.truths, counting.reads) == (truths, 0)


def test_a_batch_is_stacked_in_order(store: Store) -> None:
    dataset = SegmentationDataset(store, "test", CANVAS)
    batch = collate([dataset[2], dataset[0]])
    assert batch.image.shape == (2, 3, CANVAS, CANVAS)
    assert batch.mask.dtype == batch.valid.dtype == torch.bool
    assert (batch.ids, batch.indices) == (["test_2", "test_0"], [2, 0])
    assert batch.original_hw == [(24, 32)] * 2
    assert torch.equal(batch.mask[1], dataset[0].mask)
    assert batch.to("cpu").ids == batch.ids


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_give_the_same_batches(store: Store, context: str) -> None:
    dataset = SegmentationDataset(store, "train", CANVAS)
    alone = DataLoader(dataset, batch_size=2, collate_fn=collate)
    expected = [batch.image for batch in alone]
    shared = DataLoader(dataset, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context=context)
    for ours, batch in zip(expected, shared, strict=True):
        assert torch.equal(ours, batch.image)


def test_masks_come_back_to_the_original_size(store: Store) -> None:
    dataset = SegmentationDataset(store, "val", CANVAS)
    item, sample = dataset[0], dataset.sample(0)
    logits = item.mask[None, None].float() * 2 - 1
    restored = transforms.restore_logits(logits, CANVAS, [item.resized_hw], [item.original_hw])[0] > 0
    assert (restored.numpy() == sample.mask).mean() > 0.95


def test_an_absent_split_is_refused_with_what_there_is(csv_set: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (csv_set / f"{split}.csv").unlink()
    import_dataset(csv_set, domain="squares", out=tmp_path / "set")
    with pytest.raises(DataError, match=r"no rows in split 'train' \(rows: train 0, val 0, test 3\)"):
        SegmentationDataset(open_dataset(tmp_path / "set"), "train", CANVAS)


@pytest.mark.parametrize("index", [4, -1])
def test_an_index_out_of_range_is_refused(store: Store, index: int) -> None:
    with pytest.raises(IndexError, match="of 4 rows in split 'train'"):
        SegmentationDataset(store, "train", CANVAS)[index]


def test_every_real_polyp_image_lies_well_on_the_canvas(test_data: Path, tmp_path: Path) -> None:
    import_dataset(test_data / "polyp", domain="polyp", out=tmp_path / "polyp")
    dataset = SegmentationDataset(open_dataset(tmp_path / "polyp"), "val", 128)
    for index in range(len(dataset)):
        item, truth = dataset[index], dataset.sample(index).mask
        assert item.resized_hw == (96, 128)
        assert item.mask[item.valid].float().mean().item() == pytest.approx(float(np.mean(truth)), abs=0.01)
