"""Many adapters on one base: the same masks as each alone, whatever comes, goes, or runs beside it."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infosam.config import ModelConfig
from infosam.errors import BundleError, BundleMismatch, DataError, UnknownDomain
from infosam.peft.config import (
    AdapterConfig,
    AdaptFormerConfig,
    BitFitConfig,
    ConvLoraConfig,
    DecoderOnlyConfig,
    DoraConfig,
    FullConfig,
    Ia3Config,
    LohaConfig,
    LoraConfig,
    NormConfig,
    ParallelConfig,
    PeftConfig,
    RsLoraConfig,
)
from infosam.peft.inject import METHODS
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.routing import shelf
from infosam.routing.pool import AdapterPool
from infosam.sam.weights import BaseSam

KINDS: list[PeftConfig] = [
    LoraConfig(rank=2),
    LoraConfig(rank=2, first_block=3),
    DoraConfig(rank=2),
    RsLoraConfig(rank=2, first_block=5),
    LohaConfig(rank=2),
    Ia3Config(),
    ConvLoraConfig(rank=2, experts=3),
    AdapterConfig(width=4, first_block=2),
    ParallelConfig(width=4),
    AdaptFormerConfig(width=4, first_block=4),
    BitFitConfig(),
    NormConfig(first_block=3),
    FullConfig(first_block=4),
    DecoderOnlyConfig(),
]
PROMPT = ImagePrompt(box=(4, 5, 50, 40))


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in ((60, 64), (48, 100), (90, 70))]


@pytest.fixture(scope="module")
def lora(make_bundle) -> dict[str, Path]:
    """Three bundles of one configuration."""
    return {name: make_bundle(LoraConfig(rank=2), seed=seed) for seed, name in enumerate(("leaf", "polyp", "road"))}


@pytest.fixture
def pool(lora: dict[str, Path]) -> AdapterPool:
    return AdapterPool.from_folders(lora, device="cpu")


def alone(bundle: Path, picture: NDArray[np.uint8], prompt: ImagePrompt | None = PROMPT) -> NDArray[np.bool_]:
    return Predictor(bundle, device="cpu").predict(picture, prompt)


def test_every_kind_is_listed() -> None:
    assert {config.kind for config in KINDS} == set(METHODS)


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_masks_are_those_of_each_bundle_alone(tiny_base: BaseSam, make_bundle, pictures, protocol: str) -> None:
    """All kinds in one pool, each used twice, so that a swap that leaves something behind shows."""
    pool = AdapterPool(tiny_base, device="cpu")
    bundles = {f"d{number}": make_bundle(config, seed=number, protocol=protocol) for number, config in enumerate(KINDS)}
    for name, bundle in bundles.items():
        pool.add(name, bundle)
    expected = {name: alone(bundle, pictures[0]) for name, bundle in bundles.items()}
    assert len({mask.tobytes() for mask in expected.values()}) > len(KINDS) / 2
    for name in [*bundles, *reversed(bundles)]:
        (found,) = pool.predict_batch([pictures[0]], [PROMPT], [name])
        assert (found.mask == expected[name]).all(), name
        assert (found.domain, found.score, found.threshold, found.reason) == (name, None, None, "asked for")
    (plain,) = pool.predict_batch([pictures[0]], [PROMPT], [None])
    assert (plain.mask == Predictor(tiny_base, device="cpu").predict(pictures[0], PROMPT)).all()
    assert (plain.domain, plain.reason) == (None, "plain SAM was asked for")


def test_a_mixed_batch_keeps_its_order(pool: AdapterPool, lora, tiny_base: BaseSam, pictures) -> None:
    names = ["road", None, "leaf", "road", "polyp", None]
    images = [pictures[number % 3] for number in range(6)]
    prompts = [PROMPT, None, ImagePrompt(points=((9, 9, 1),)), None, PROMPT, PROMPT]
    for name, image, prompt, found in zip(
        names, images, prompts, pool.predict_batch(images, prompts, names), strict=True
    ):
        predictor = Predictor(tiny_base if name is None else lora[name], device="cpu")
        odds = predictor.logits(image, prompt)
        assert found.domain == name
        assert found.mask.shape == image.shape[:2]
        assert ((odds > 0) == found.mask)[np.abs(odds) > 1e-3].all()


def test_the_base_stays_as_it_was(tiny_base: BaseSam, lora, pictures) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_base.sam.state_dict().items()}
    pool = AdapterPool(tiny_base, device="cpu")
    for name, bundle in lora.items():
        pool.add(name, bundle)
        pool.predict_batch([pictures[0]], None, [name])
    assert all((tensor == before[name]).all() for name, tensor in tiny_base.sam.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tiny_base.sam.parameters())


def test_what_there_is(pool: AdapterPool) -> None:
    assert pool.domains() == ("leaf", "polyp", "road")
    pool.remove("polyp")
    assert pool.domains() == ("leaf", "road")
    with pytest.raises(UnknownDomain, match="the pool has no domain 'polyp'; it has: leaf, road"):
        pool.remove("polyp")
    with pytest.raises(UnknownDomain, match="no domain 'polyp'"):
        pool.predict_batch([np.zeros((9, 9, 3), np.uint8)], None, ["polyp"])


def test_a_newer_bundle_takes_the_place(pool: AdapterPool, lora, make_bundle, pictures) -> None:
    newer = make_bundle(LoraConfig(rank=4), seed=9)
    pool.add("leaf", newer)
    (found,) = pool.predict_batch([pictures[0]], [PROMPT], ["leaf"])
    assert (found.mask == alone(newer, pictures[0])).all()
    assert pool.domains() == ("leaf", "polyp", "road")


class TestRefusals:
    def test_a_broken_bundle_changes_nothing(self, pool: AdapterPool, lora, tmp_path: Path, pictures) -> None:
        broken = Path(shutil.copytree(lora["road"], tmp_path / "broken"))
        (broken / "rest.safetensors").write_bytes(b"damaged")
        with pytest.raises(BundleError, match="damaged"):
            pool.add("leaf", broken)
        with pytest.raises(BundleError, match="not an adapter bundle"):
            pool.add("leaf", tmp_path)
        (found,) = pool.predict_batch([pictures[0]], [PROMPT], ["leaf"])
        assert (found.mask == alone(lora["leaf"], pictures[0])).all()

    @pytest.mark.parametrize(
        ("change", "message"), [({"sha256": "0" * 64}, "would be wrong"), ({"image_px": 96}, "96 px")]
    )
    def test_another_base(self, pool: AdapterPool, lora, tmp_path: Path, change, message: str) -> None:
        other = Path(shutil.copytree(lora["road"], tmp_path / "other"))
        card = json.loads((other / "card.json").read_text(encoding="utf-8"))
        card["base"] |= change
        (other / "card.json").write_text(json.dumps(card), encoding="utf-8")
        with pytest.raises(BundleMismatch, match=message):
            pool.add("other", other)
        assert "other" not in pool.domains()

    @pytest.mark.parametrize("name", ["auto", ""])
    def test_names_that_mean_something_else(self, pool: AdapterPool, lora, name: str) -> None:
        with pytest.raises(BundleError, match="a domain cannot be called"):
            pool.add(name, lora["leaf"])

    def test_a_prompt_outside(self, pool: AdapterPool, pictures) -> None:
        with pytest.raises(DataError, match=r"prompt of image 1: .* outside"):
            pool.predict_batch(pictures[:2], [None, ImagePrompt(points=((500, 1, 1),))], ["leaf", "leaf"])


def test_nothing_in_nothing_out(pool: AdapterPool) -> None:
    assert pool.predict_batch([]) == []


def test_a_pool_needs_a_bundle_or_a_base() -> None:
    with pytest.raises(ValueError, match="at least one bundle"):
        AdapterPool.from_folders({})
    assert AdapterPool(ModelConfig(image_px=64), device="cpu").domains() == ()


class TestMemory:
    def test_dropped_weights_are_read_again(self, lora, pictures) -> None:
        """Less than two bundles fit, so every change of domain reads the disk."""
        pool = AdapterPool.from_folders(lora, device="cpu", memory_mib=1)
        expected = {name: alone(bundle, pictures[0]) for name, bundle in lora.items()}
        for name in [*lora, *lora]:
            (found,) = pool.predict_batch([pictures[0]], [PROMPT], [name])
            assert (found.mask == expected[name]).all()
        assert pool.weights_bytes < 1.5 * AdapterPool.from_folders({"leaf": lora["leaf"]}, device="cpu").weights_bytes

    def test_a_folder_that_changed_meanwhile(self, lora, tmp_path: Path, pictures) -> None:
        copies = {name: Path(shutil.copytree(bundle, tmp_path / name)) for name, bundle in lora.items()}
        pool = AdapterPool.from_folders(copies, device="cpu", memory_mib=1)
        shutil.rmtree(copies["leaf"])
        shutil.copytree(lora["polyp"], copies["leaf"])
        with pytest.raises(BundleError, match="is another bundle than when it was added as leaf; add it again"):
            pool.predict_batch([pictures[0]], None, ["leaf"])
        shutil.rmtree(copies["leaf"])
        with pytest.raises(BundleError, match="not an adapter bundle"):
            pool.predict_batch([pictures[0]], None, ["leaf"])
        assert pool.predict_batch([pictures[0]], None, ["road"])[0].domain == "road"

    def test_skeletons_count_and_go_with_the_weights_they_are_for(self, make_bundle, lora, pictures) -> None:
        """Every bundle of another configuration: more than fit are dropped, skeletons too, and made again."""
        bundles = {f"r{rank}": make_bundle(LoraConfig(rank=rank)) for rank in range(1, 6)}
        roomy = AdapterPool.from_folders(bundles, device="cpu")
        tight = AdapterPool.from_folders(bundles, device="cpu", memory_mib=12)
        assert roomy.weights_bytes > 12 << 20
        for name in [*bundles, *bundles]:
            (found,), (expected,) = (pool.predict_batch([pictures[0]], [PROMPT], [name]) for pool in (tight, roomy))
            assert (found.mask == expected.mask).all()
            assert tight.weights_bytes <= 12 << 20
        for name in bundles:
            roomy.remove(name)
        assert roomy.weights_bytes == 0

    def test_a_skeleton_that_is_made_stops_nobody(
        self, tiny_base: BaseSam, lora, make_bundle, pictures, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = AdapterPool.from_folders(lora, device="cpu")
        began, go_on = threading.Event(), threading.Event()
        made = shelf.Skeleton

        def slowly(*arguments: object) -> object:
            began.set()
            assert go_on.wait(60)
            return made(*arguments)

        monkeypatch.setattr(shelf, "Skeleton", slowly)
        other = threading.Thread(target=pool.add, args=("other", make_bundle(LoraConfig(rank=7))))
        other.start()
        try:
            assert began.wait(60)
            (found,) = pool.predict_batch([pictures[0]], [PROMPT], ["leaf"])
            assert found.domain == "leaf"
            assert "other" not in pool.domains()
        finally:
            go_on.set()
            other.join()
        assert "other" in pool.domains()

    def test_frozen_tensors_are_shared(self, tiny_base: BaseSam, lora) -> None:
        pool = AdapterPool(tiny_base, device="cpu")
        held = pool._shelf.open("leaf", lora["leaf"])
        with pool._shelf.worn(held) as sam:
            own = {name: tensor.data_ptr() for name, tensor in tiny_base.sam.image_encoder.state_dict().items()}
            worn = {name.replace(".base_layer", ""): t.data_ptr() for name, t in sam.image_encoder.state_dict().items()}
            assert own.items() <= worn.items()


def test_threads_do_not_mix_adapters_up(pool: AdapterPool, lora, make_bundle, pictures) -> None:
    """Four threads predict while a fifth replaces one of the domains again and again."""
    newer = make_bundle(LoraConfig(rank=2), seed=7)
    expected = {name: {alone(bundle, pictures[0]).tobytes()} for name, bundle in lora.items()}
    expected["leaf"].add(alone(newer, pictures[0]).tobytes())
    wrong: list[str] = []

    def ask(offset: int) -> None:
        for number in range(12):
            name = list(lora)[(number + offset) % 3]
            (found,) = pool.predict_batch([pictures[0]], [PROMPT], [name])
            if found.mask.tobytes() not in expected[name]:
                wrong.append(name)

    def replace() -> None:
        for number in range(12):
            pool.add("leaf", newer if number % 2 else lora["leaf"])

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    threads.append(threading.Thread(target=replace))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
