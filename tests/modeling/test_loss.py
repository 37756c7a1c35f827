"""The criterion against the formulas of the paper, written out plainly."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from maskformer.modeling import matcher
from maskformer.modeling.loss import mask_classification_losses
from maskformer.modeling.mask_loss import focal_and_dice
from maskformer.modeling.matcher import match

WEIGHTS = (1.0, 20.0, 1.0)


def plain_focal_and_dice(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal and dice loss of one mask (H, W) against another, both of one size."""
    target, probability = target.to(logits.dtype), logits.sigmoid()
    p_t = probability * target + (1 - probability) * (1 - target)
    alpha = 0.25 * target + 0.75 * (1 - target)
    focal = (alpha * (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).mean()
    dice = 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)
    return focal, dice


def resized(mask: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """A mask (h, w) at `size`."""
    options = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(mask[None, None], size=size, mode=mode, **options)[0, 0]


@pytest.mark.parametrize(
    ("small", "large"), [((9, 11), (37, 41)), ((8, 8), (32, 32)), ((5, 7), (5, 7)), ((1, 1), (3, 2))]
)
def test_mask_losses_equal_the_formulas_in_value_and_gradient(small, large):
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(6, *small, dtype=torch.float64, generator=random)).requires_grad_()
    targets = torch.rand(6, *large, generator=random) > 0.6
    targets[0], targets[1] = False, True
    pairs = [
        plain_focal_and_dice(resized(mask, large, "bilinear"), target)
        for mask, target in zip(logits, targets, strict=True)
    ]
    expected = [sum(values) for values in zip(*pairs, strict=True)]
    indices = torch.arange(6)
    actual = [values.sum() for values in focal_and_dice(logits, targets, indices)]
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)
        gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (a, e)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: focal_and_dice(x, targets, indices), logits)


def test_mask_losses_stay_finite_where_logits_are_extreme():
    logits = torch.tensor([[[-1e4, 1e4], [0.0, 300.0]]]).requires_grad_()
    focal, dice = focal_and_dice(logits, torch.tensor([[[True, False], [True, True]]]), torch.tensor([0]))
    (focal + dice).backward()
    assert focal.isfinite() and dice.isfinite() and logits.grad.isfinite().all()


def predictions(layers: int, sizes: list[int], queries: int = 5, labels: int = 3):
    """Random predictions of several layers, and targets."""
    random = torch.Generator().manual_seed(3)
    class_logits = torch.randn(layers, len(sizes), queries, labels + 1, dtype=torch.float64, generator=random)
    mask_logits = 3 * torch.randn(layers, len(sizes), queries, 6, 8, dtype=torch.float64, generator=random)
    masks = [torch.rand(size, 24, 32, generator=random) > 0.5 for size in sizes]
    classes = [torch.randint(labels, (size,), generator=random) for size in sizes]
    return class_logits, mask_logits, masks, classes


def brute_force_cost(class_logits, mask_logits, mask, label) -> float:
    """Cost of one pair: focal and dice at the prediction's size, and minus the probability of the class."""
    target = resized(mask.double(), tuple(mask_logits.shape), "nearest")
    focal, dice = plain_focal_and_dice(mask_logits, target)
    return float(20 * focal + dice - class_logits.softmax(-1)[label])


@pytest.mark.parametrize("sizes", [[3], [2, 0, 4]])
def test_matching_is_the_cheapest_of_all_assignments(sizes):
    class_logits, mask_logits, masks, classes = predictions(2, sizes)
    for layer, pairs in enumerate(match(class_logits, mask_logits, classes, masks, WEIGHTS)):
        for image, (queries, targets) in enumerate(pairs):
            cost = [
                [
                    brute_force_cost(class_logits[layer, image, q], mask_logits[layer, image, q], mask, label)
                    for mask, label in zip(masks[image], classes[image], strict=True)
                ]
                for q in range(5)
            ]
            best = min(
                sum(cost[q][t] for t, q in enumerate(order)) for order in itertools.permutations(range(5), sizes[image])
            )
            assert len(set(queries.tolist())) == len(set(targets.tolist())) == sizes[image]
            chosen = sum(cost[q][t] for q, t in zip(queries.tolist(), targets.tolist(), strict=True))
            assert chosen == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("threads", [1, 8])
def test_matching_of_many_masks_of_which_each_is_in_one_place(monkeypatch, threads):
    monkeypatch.setattr(matcher, "ELEMENTS_AT_ONCE", 1)  # 256 places at a time, in which most masks are not
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(matcher, "mkl_is_slow", lambda: True)  # NumPy's logarithm by few threads, PyTorch's by many
    random = torch.Generator().manual_seed(5)
    class_logits = torch.randn(2, 1, 45, 4, generator=random)
    mask_logits = 3 * torch.randn(2, 1, 45, 40, 30, generator=random)
    masks, labels = torch.zeros(36, 40, 30, dtype=torch.bool), torch.randint(3, (36,), generator=random)
    for index, mask in enumerate(masks):  # of 36, one is empty and one everywhere
        mask[index : index + 3, index % 20 : index % 20 + 9] = index != 7
    masks[11] = True
    for layer, [(queries, targets)] in enumerate(match(class_logits, mask_logits, [labels], [masks], WEIGHTS)):
        logits, classes = mask_logits[layer, 0].double(), class_logits[layer, 0].double()
        cost = [
            [brute_force_cost(classes[q], logits[q], mask, label) for mask, label in zip(masks, labels, strict=True)]
            for q in range(45)
        ]
        best = linear_sum_assignment(cost)
        chosen = sum(cost[q][t] for q, t in zip(queries.tolist(), targets.tolist(), strict=True))
        assert chosen == pytest.approx(sum(cost[q][t] for q, t in zip(*best, strict=True)), abs=1e-5)


@pytest.mark.parametrize("slow", [True, False])
def test_costs_of_predictions_from_next_to_nothing_to_far_too_sure(monkeypatch, slow):
    monkeypatch.setattr(matcher, "mkl_is_slow", lambda: slow)
    values = torch.tensor([-3000.0, -200, -100, -88, -80, -50, -20, -8, -5, 0, 5, 20, 50, 100, 3000])
    logits = values.view(1, -1, 1).expand(2, -1, 400) * torch.tensor([1, 0.99]).view(2, 1, 1)  # (L, N, P)
    targets = torch.zeros(3, 400, dtype=torch.bool)
    targets[0, :100], targets[1] = True, True
    focal, dice = matcher.mask_costs(logits, targets)
    for layer, query, target in itertools.product(range(2), range(len(values)), range(3)):
        expected = plain_focal_and_dice(logits[layer, query].double(), targets[target].double())
        found = (focal[layer, query, target], dice[layer, query, target])
        rounding = 2e-6 * max(1.0, abs(float(values[query])))  # costs are differences of sums of such terms
        torch.testing.assert_close(torch.stack(found).double(), torch.stack(expected), rtol=1e-5, atol=rounding)


def test_costs_of_float64_are_as_exact():
    logits = torch.randn(2, 4, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.arange(400) < 150
    costs = matcher.mask_costs(logits, target[None])
    for layer, query in itertools.product(range(2), range(4)):
        expected = plain_focal_and_dice(logits[layer, query], target.double())
        for found, value in zip(costs, expected, strict=True):
            assert found[layer, query, 0].item() == pytest.approx(value.item(), rel=1e-13)


@pytest.mark.parametrize("processor", ["GenuineIntel", "AuthenticAMD"])
@pytest.mark.parametrize("has_mkl", [True, False])
def test_numpy_takes_logarithms_where_mkl_is_slow(monkeypatch, processor, has_mkl, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {processor}\n")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    for path in (tmp_path / "cpuinfo", tmp_path / "absent"):
        monkeypatch.setattr(matcher, "CPUINFO", path)
        monkeypatch.setattr(matcher.platform, "processor", lambda: f"Family 6, {processor}")
        assert matcher.mkl_is_slow.__wrapped__() == (has_mkl and processor == "AuthenticAMD")


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused_where_no_mask_is(monkeypatch, count, strange):
    monkeypatch.setattr(matcher, "ELEMENTS_AT_ONCE", 1)
    mask_logits, masks = torch.randn(1, 1, 50, 32, 32), torch.zeros(count, 32, 32, dtype=torch.bool)
    masks[:, :4, :4] = True
    masks[15:, -4:, :4] = True
    for row in (2, 16, 30):
        logits = mask_logits.clone()
        logits[0, 0, 3, row, 20] = strange
        with pytest.raises(matcher.PredictionIsNaN):
            match(torch.randn(1, 1, 50, 4), logits, [torch.zeros(count, dtype=torch.int64)], [masks], WEIGHTS)


def test_a_batch_matches_as_its_images_do():
    class_logits, mask_logits, masks, classes = predictions(3, [2, 4])
    together = match(class_logits, mask_logits, classes, masks, WEIGHTS)
    for image in range(2):
        part = slice(image, image + 1)
        alone = match(class_logits[:, part], mask_logits[:, part], classes[part], masks[part], WEIGHTS)
        for layer, pairs in enumerate(alone):
            for a, b in zip(pairs[0], together[layer][image], strict=True):
                assert torch.equal(a, b)


def test_losses_equal_the_formulas():
    sizes = [3, 0, 4]
    class_logits, mask_logits, masks, classes = predictions(2, sizes)
    losses = mask_classification_losses(class_logits, mask_logits, masks, classes, WEIGHTS, no_object_weight=0.1)
    for layer, pairs in enumerate(match(class_logits, mask_logits, classes, masks, WEIGHTS)):
        target = torch.full((3, 5), 3)
        focal_sum = dice_sum = 0.0
        for image, (queries, targets) in enumerate(pairs):
            target[image, queries] = classes[image][targets]
            for q, t in zip(queries.tolist(), targets.tolist(), strict=True):
                logits = resized(mask_logits[layer, image, q], (24, 32), "bilinear")
                focal, dice = plain_focal_and_dice(logits, masks[image][t])
                focal_sum, dice_sum = focal_sum + focal, dice_sum + dice
        weight = torch.where(target == 3, 0.1, 1.0).double()
        log_probability = class_logits[layer].log_softmax(-1).gather(2, target[..., None])[..., 0]
        expected = {
            "loss_ce": -(weight * log_probability).sum() / weight.sum(),
            "loss_mask": focal_sum / sum(sizes),
            "loss_dice": dice_sum / sum(sizes),
        }
        for name, value in expected.items():
            torch.testing.assert_close(losses[name, layer], value)


def test_nan_predictions_are_named():
    class_logits, mask_logits, masks, classes = predictions(1, [2])
    mask_logits[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        match(class_logits, mask_logits, classes, masks, WEIGHTS)


def test_half_precision_predictions_are_matched_and_scored_in_float32():
    """Magnitudes whose squares and sums overflow float16."""
    class_logits, mask_logits, masks, classes = predictions(1, [3])
    mask_logits = (mask_logits * 1e3).half()
    losses = mask_classification_losses(class_logits.half(), mask_logits, masks, classes, WEIGHTS, 0.1)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
