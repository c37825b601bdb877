"""Statistics from training images, and what a bundle keeps of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from infosam.bundle import copy_bundle, read_bundle
from infosam.data.dataset import SegmentationDataset
from infosam.data.manifest import Splitting
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import BundleError
from infosam.routing import fitting
from infosam.routing.disturbances import WAYS
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import (
    FOLDS,
    MIN_IMAGES,
    QUANTILE,
    TrainingPictures,
    encode_pictures,
    fit_statistics,
    folds,
    held_out_scores,
    scene_features,
    statistics_of,
)
from infosam.routing.scorers import SCORERS, ScorerName
from infosam.routing.statistics import read_statistics
from infosam.synthetic import write_demo_domain
from infosam.training import Materials

CPU = torch.device("cpu")


class TestFit:
    def test_unseen_images_are_inside_and_other_domains_outside(self, domains: dict[str, Materials]) -> None:
        own = domains["spores"].routing
        assert own is not None
        for name, of in domains.items():
            store = of.train_set.store
            pictures = [store.read("test", row).image for row in range(store.rows("test"))]
            seen = encode_pictures(of.base, pictures, CPU, own.card.features)
            inside = own.scores(seen) <= own.card.threshold
            assert inside.all() if name == "spores" else not inside.any()

    def test_what_the_card_says(self, domains: dict[str, Materials]) -> None:
        found = domains["spores"].routing
        assert found is not None
        assert found.card.model_dump(exclude={"features", "threshold"}) == {
            "scorer": "mahalanobis", "images": 20, "copies": len(WAYS), "seed": 0, "canvas_px": 64,
        }  # fmt: skip

    def test_it_repeats(self, domains: dict[str, Materials]) -> None:
        of = domains["spores"]
        first, again = of.routing, fit_statistics(of.base, of.train_set, CPU)
        assert first is not None
        assert again is not None
        assert first.card == again.card
        assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())

    def test_too_few_images(self, materials: Materials) -> None:
        assert len(materials.train_set) < MIN_IMAGES
        assert TrainingPictures.choose(materials.train_set) is None
        assert materials.routing is None

    @pytest.mark.parametrize("scorer", SCORERS)
    def test_every_scorer_can_be_used(
        self, monkeypatch: pytest.MonkeyPatch, domains: dict[str, Materials], scorer: ScorerName
    ) -> None:
        monkeypatch.setattr(fitting, "SCENES", 12)
        of, config = domains["violet"], FeatureConfig(taps=(1,))
        pictures = TrainingPictures.choose(of.train_set)
        assert pictures is not None
        seen = encode_pictures(of.base, pictures, CPU, config)
        assert len(seen) == len(pictures) == 20 * (1 + len(WAYS))
        background = scene_features(of.base, CPU, config)
        made = statistics_of(pictures, seen, background, config=config, scorer=scorer, canvas_px=64)
        originals = seen[:: 1 + len(WAYS)]
        assert (made.scores(originals) <= made.card.threshold).float().mean() >= 0.9


def test_a_threshold_is_of_images_the_statistics_have_not_seen() -> None:
    """Copies of an image stay in its fold: else each would be known by the others, and the threshold far too low."""
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(40, 1, 16, generator=generator), dim=2)
    copies = images + 1e-4 * torch.randn(40, 4, 16, generator=generator)
    scores = held_out_scores(copies, torch.arange(40), copies.flatten(0, 1), "neighbours", seed=0)
    distances = torch.cdist(images[:, 0], images[:, 0]) + 10 * torch.eye(40)
    assert scores.quantile(QUANTILE) > distances.min(dim=1).values.quantile(0.5)
    assert scores.shape == (40, 4)


class TestGroups:
    def test_folds_never_cut_a_group(self) -> None:
        groups = torch.tensor([0] * 9 + [1] * 5 + [2] * 4 + [3, 4, 5, 6] * 2)
        found = folds(groups, seed=3)
        assert all(len(found[groups == group].unique()) == 1 for group in groups.unique())
        sizes = found.bincount()
        assert len(sizes) == FOLDS
        assert sizes.max() == 9
        assert sizes.min() >= 4
        assert torch.equal(found, folds(groups, seed=3))

    def test_a_single_group_is_divided_all_the_same(self) -> None:
        assert folds(torch.zeros(10, dtype=torch.long), seed=0).bincount().tolist() == [2] * FOLDS

    def test_frames_of_a_video_do_not_know_each_other(self) -> None:
        """A video's frames look alike: with some of them on either side its others would pass for typical images."""
        generator = torch.Generator().manual_seed(0)
        videos = torch.nn.functional.normalize(torch.randn(8, 1, 16, generator=generator), dim=2)
        frames = (videos + 0.01 * torch.randn(8, 7, 16, generator=generator)).reshape(56, 1, 16)
        alone, together = torch.arange(56), torch.arange(8).repeat_interleave(7)
        leaky, honest = (
            held_out_scores(frames, groups, frames[:, 0], "mahalanobis", seed=0).median()
            for groups in (alone, together)
        )
        assert honest > 1.5 * leaky

    def test_they_are_those_of_the_data_set(self, tmp_path: Path) -> None:
        source = write_demo_domain(tmp_path / "spores", train=20, val=2, test=2, image_px=64)
        grouped = Splitting(group=r"(\w+_\d+)\d\.png$")
        import_dataset(source, domain="spores", out=tmp_path / "set", splitting=grouped)
        found = TrainingPictures.choose(SegmentationDataset(open_dataset(tmp_path / "set"), "train", 64))
        assert found is not None
        store = found.dataset.store
        names = [store.group("train", row) for row in found.rows]
        assert None not in names
        for one, name in zip(found.groups, names, strict=True):
            assert [other == name for other in names] == (found.groups == one).tolist()


class TestBundle:
    def test_it_is_part_of_the_bundle(self, routed: dict[str, Path], domains: dict[str, Materials], tmp_path) -> None:
        card = read_bundle(routed["spores"]).card
        assert "routing.safetensors" in card["files"]
        copied = copy_bundle(routed["spores"], tmp_path / "copy")
        found, made = read_statistics(copied, card, 64), domains["spores"].routing
        assert found is not None
        assert made is not None
        assert found.card == made.card
        assert all(torch.equal(tensor, made.tensors[name]) for name, tensor in found.tensors.items())

    def test_a_bundle_without(self, make_bundle) -> None:
        from infosam.peft.config import DecoderOnlyConfig

        bundle = make_bundle(DecoderOnlyConfig())
        assert not (bundle / "routing.safetensors").exists()
        assert read_statistics(bundle, read_bundle(bundle).card, 64) is None

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scorer": "nearest"}, "cannot be read: .*scorer"),
            ({"threshold": -1}, "cannot be read: .*threshold"),
            ({"canvas_px": 96}, "on a canvas of 96 px, the base here has 64 px"),
        ],
    )
    def test_a_card_that_says_nonsense(self, routed, change, message: str) -> None:
        card = read_bundle(routed["spores"]).card
        with pytest.raises(BundleError, match=f"(?s){message}"):
            read_statistics(routed["spores"], card | {"routing": card["routing"] | change}, 64)

    def test_a_file_that_is_none(self, routed, tmp_path: Path) -> None:
        bundle = Path(shutil.copytree(routed["spores"], tmp_path / "bundle"))
        card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
        (bundle / "routing.safetensors").write_bytes(b"damaged")
        with pytest.raises(BundleError, match=r"routing\.safetensors: damaged"):
            read_bundle(bundle)
        with pytest.raises(BundleError, match="cannot be read"):
            read_statistics(bundle, card, 64)
