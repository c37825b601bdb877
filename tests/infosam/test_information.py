"""Entropies with known answers, and every order against eigenvalues taken in float64 by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam.information import entropy, gram, joint_entropy, mutual_information

ORDERS = (0.5, 0.9, 1.0, 1.01, 1.5, 2.0, 3.0)


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def oracle_gram(x: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T / len(x)


def oracle_entropy(matrix: NDArray[np.float64], alpha: float) -> float:
    """S_alpha(A) = log2(sum of eigenvalues to the power alpha) / (1 - alpha); von Neumann's for alpha 1."""
    values = np.linalg.eigvalsh(matrix)
    values = values[values > 1e-13]
    if alpha == 1:
        return float(-(values * np.log2(values)).sum())
    return float(np.log2((values**alpha).sum()) / (1 - alpha))


class TestGram:
    def test_it_is_the_linear_kernel_of_unit_rows_with_trace_1(self) -> None:
        x = rows(5, 12)
        torch.testing.assert_close(gram(x), torch.from_numpy(oracle_gram(x.numpy())))
        assert gram(x).trace().item() == pytest.approx(1)

    def test_trailing_axes_are_flattened(self) -> None:
        x = rows(4, 24)
        assert torch.equal(gram(x.view(4, 2, 3, 4)), gram(x))

    def test_the_length_of_a_row_does_not_matter(self) -> None:
        x = rows(4, 8)
        torch.testing.assert_close(gram(x * torch.tensor([[1.0], [0.01], [7.0], [300.0]])), gram(x))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_it_is_float32_under_autocast(self, dtype: torch.dtype) -> None:
        x = rows(4, 64).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = gram(x)
            bits = mutual_information(inside, gram(x.flip(0)))
        assert inside.dtype == bits.dtype == torch.float32
        assert torch.equal(inside, gram(x.float()))


class TestEntropy:
    @pytest.mark.parametrize("alpha", [0.1, *ORDERS, 10.0])
    @pytest.mark.parametrize("images", [1, 2, 8])
    def test_it_counts_independent_images(self, images: int, alpha: float) -> None:
        assert entropy(gram(torch.eye(images)), alpha).item() == pytest.approx(math.log2(images), abs=1e-5)

    @pytest.mark.parametrize("alpha", [0.1, *ORDERS, 10.0])
    def test_equal_images_have_none(self, alpha: float) -> None:
        assert entropy(gram(torch.ones(8, 5)), alpha).item() == pytest.approx(0, abs=1e-5)

    @pytest.mark.parametrize("alpha", ORDERS)
    def test_it_equals_the_eigenvalue_formula(self, alpha: float) -> None:
        matrix = gram(rows(7, 5, seed=3))  # rank 5 of 7
        assert entropy(matrix, alpha).item() == pytest.approx(oracle_entropy(matrix.numpy(), alpha), rel=1e-9)
        assert entropy(matrix.float(), alpha).item() == pytest.approx(oracle_entropy(matrix.numpy(), alpha), rel=1e-5)

    @pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4, 1e-5, 2e-6])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_order_1_is_the_limit_from_both_sides(self, dtype: torch.dtype, step: float) -> None:
        matrix = gram(rows(6, 9).to(dtype))
        below, at, above = (entropy(matrix, alpha).item() for alpha in (1 - step, 1.0, 1 + step))
        assert below >= at - 1e-6
        assert at >= above - 1e-6
        assert below - above < 2 * step + 1e-6  # its slope is the spectrum's spread, well below 1 bit here

    @pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
    def test_an_order_that_is_none_is_refused(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="alpha must be > 0"):
            entropy(torch.eye(2) / 2, alpha)

    @pytest.mark.parametrize("alpha", ORDERS)
    def test_gradients_are_right(self, alpha: float) -> None:
        x = rows(4, 6).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: entropy(gram(x), alpha), (x,))

    @pytest.mark.parametrize("alpha", [0.1, *ORDERS])
    def test_repeated_rows_keep_gradients_finite(self, alpha: float) -> None:
        x = rows(3, 6).float()[[0, 1, 1, 2, 2, 2]].requires_grad_()
        entropy(gram(x), alpha).backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() < 10


class TestJoint:
    @pytest.mark.parametrize("alpha", ORDERS)
    def test_of_one_variable_is_its_entropy(self, alpha: float) -> None:
        a = gram(rows(5, 4))
        assert joint_entropy(a, alpha=alpha).item() == pytest.approx(entropy(a, alpha).item())

    @pytest.mark.parametrize("alpha", ORDERS)
    def test_it_is_the_entropy_of_the_product_with_trace_1(self, alpha: float) -> None:
        parts = [gram(rows(5, 4, seed)) for seed in range(3)]
        product = parts[0].numpy() * parts[1].numpy() * parts[2].numpy()
        expected = oracle_entropy(product / np.trace(product), alpha)
        assert joint_entropy(*parts, alpha=alpha).item() == pytest.approx(expected)

    def test_it_is_no_smaller_than_each_part(self) -> None:
        a, b = gram(rows(6, 3, 1)), gram(rows(6, 3, 2))
        assert joint_entropy(a, b) >= max(entropy(a), entropy(b))

    def test_a_constant_adds_nothing(self) -> None:
        a, constant = gram(rows(6, 3)), gram(torch.ones(6, 2, dtype=torch.float64))
        assert joint_entropy(a, constant).item() == pytest.approx(entropy(a).item())

    def test_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            joint_entropy()

    def test_gradients_are_right_also_through_zeros(self) -> None:
        x, y = torch.eye(4, dtype=torch.float64).requires_grad_(), rows(4, 5).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, y: joint_entropy(gram(x), gram(y)), (x, y))


class TestMutualInformation:
    @pytest.mark.parametrize("alpha", ORDERS)
    def test_it_is_symmetric(self, alpha: float) -> None:
        a, b = gram(rows(5, 4, 1)), gram(rows(5, 4, 2))
        forth, back = mutual_information(a, b, alpha), mutual_information(b, a, alpha)
        assert forth.item() == pytest.approx(back.item())

    @pytest.mark.parametrize("alpha", ORDERS)
    def test_independent_images_tell_all_about_themselves(self, alpha: float) -> None:
        a = gram(torch.eye(8, dtype=torch.float64))
        assert mutual_information(a, a, alpha).item() == pytest.approx(3)

    def test_a_constant_tells_nothing(self) -> None:
        a, constant = gram(rows(6, 3)), gram(torch.ones(6, 2, dtype=torch.float64))
        assert mutual_information(a, constant).item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("alpha", ORDERS)
    def test_it_is_the_sum_of_its_entropies(self, alpha: float) -> None:
        a, b = gram(rows(5, 4, 1)), gram(rows(5, 4, 2))
        product = a.numpy() * b.numpy()
        expected = (
            oracle_entropy(a.numpy(), alpha)
            + oracle_entropy(b.numpy(), alpha)
            - oracle_entropy(product / np.trace(product), alpha)
        )
        assert mutual_information(a, b, alpha).item() == pytest.approx(expected)
