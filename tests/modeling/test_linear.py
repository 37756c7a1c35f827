"""Linear layers by oneDNN's kernels give what `nn.Linear` gives, and are called where somebody watches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskformer.modeling import linear
from maskformer.modeling.blocks import BLOCK_ELEMENTS, parts
from maskformer.modeling.linear import MANY_ROWS, Linear, prepared


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(16, 8)


def expected(layer: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
    return rows.double() @ layer.weight.double().T + (0 if layer.bias is None else layer.bias.double())


def test_parts_are_the_rows_in_order():
    rows, others = torch.randn(1000, 4), torch.randn(1000)
    found = list(parts(BLOCK_ELEMENTS // 300, rows, others, None))
    assert [len(part) for part, _, _ in found] == [334, 334, 332]
    assert torch.equal(torch.cat([part for part, _, _ in found]), rows)
    assert torch.equal(torch.cat([part for _, part, _ in found]), others)
    assert {nothing for _, _, nothing in found} == {None}


@pytest.mark.parametrize("rows, number", [(0, 1), (1, 1), (100, 1), (140, 1), (160, 2), (1000, 10)])
def test_parts_are_about_as_large(rows, number):
    lengths = [len(part) for (part,) in parts(BLOCK_ELEMENTS // 100, torch.empty(rows))]
    assert len(lengths) == number and sum(lengths) == rows
    assert max(lengths) <= 150 and max(lengths) - min(lengths) < number


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 300])
def test_it_is_nn_linear(bias, rows):
    torch.manual_seed(0)
    layer, inputs = Linear(16, 8, bias=bias), torch.randn(3, rows, 16)
    exact = expected(layer, inputs)
    for call in (layer, prepared(layer, rows), prepared(layer, MANY_ROWS)):
        torch.testing.assert_close(call(inputs).double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("rows", [300, MANY_ROWS])
def test_gelu_is_part_of_it(layer, rows):
    inputs, seen = torch.randn(300, 16), []
    exact = nn.functional.gelu(expected(layer, inputs))
    torch.testing.assert_close(prepared(layer, rows, gelu=True)(inputs).double(), exact, rtol=1e-5, atol=1e-5)
    with layer.register_forward_hook(lambda *arguments: seen.append(arguments[-1])):
        found = prepared(layer, rows, gelu=True)(inputs)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[0].double(), expected(layer, inputs), rtol=1e-5, atol=1e-5)
    other = nn.Linear(16, 8)
    exact = nn.functional.gelu(expected(other, inputs))
    torch.testing.assert_close(prepared(other, rows, gelu=True)(inputs).double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_autocast_has_its_precision(layer):
    rows = torch.randn(300, 16)
    with torch.autocast("cpu", torch.bfloat16):
        for found in (layer(rows), prepared(layer, 300)(rows), prepared(layer, MANY_ROWS)(rows)):
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.double(), expected(layer, rows), rtol=0.02, atol=0.02)
        found = prepared(layer, 300, gelu=True)(rows)
        torch.testing.assert_close(found.double(), nn.functional.gelu(expected(layer, rows)), rtol=0.02, atol=0.02)


@torch.no_grad()
@pytest.mark.parametrize("missing", ["oneDNN", "operators", "allowed"])
def test_without_onednn(monkeypatch, layer, missing):
    if missing == "oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif missing == "operators":
        monkeypatch.setattr(linear, "OPERATORS", object())
    rows = torch.randn(300, 16)
    with torch.backends.mkldnn.flags(enabled=missing != "allowed"):
        assert prepared(layer, 300) is layer
    torch.testing.assert_close(layer(rows).double(), expected(layer, rows), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_other_weights_are_left_to_themselves(layer):
    class Strange(torch.Tensor):
        """A weight that is more than its numbers, as quantised ones are."""

    rows = torch.randn(3, 200, 16)
    assert layer.double()(rows.double()).dtype == torch.float64
    layer.float()
    layer.weight = nn.Parameter(layer.weight.as_subclass(Strange))
    assert isinstance(layer(rows), Strange)  # through the weight's own linear
    assert prepared(nn.Identity(), 600)(rows) is rows


@torch.no_grad()
def test_who_watches_sees_every_call(layer):
    rows, seen = torch.randn(300, 16), []
    with layer.register_forward_hook(lambda *_: seen.append("hook")):
        prepared(layer, 300)(rows)
    with nn.modules.module.register_module_forward_pre_hook(lambda *_: seen.append("global")):
        prepared(layer, 300)(rows)
    layer.forward = lambda inputs: seen.append("own")
    prepared(layer, 300)(rows)
    assert seen == ["hook", "global", "own"]


@torch.no_grad()
def test_new_weights_count_at_once(layer):
    rows = torch.randn(300, 16)
    before = layer(rows)
    layer.weight.data.mul_(2)
    layer.bias.data.mul_(2)
    torch.testing.assert_close(layer(rows), 2 * before)


@torch.no_grad()
def test_parameters_may_be_views(layer):
    rows = torch.randn(300, 16)
    layer.weight = nn.Parameter(torch.randn(16, 8).T)
    layer.bias = nn.Parameter(torch.randn(16)[::2])
    for call in (layer, prepared(layer, 300), prepared(layer, MANY_ROWS)):
        torch.testing.assert_close(call(rows).double(), expected(layer, rows), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
def test_the_order_of_weights_changes_no_bit(autocast):
    layer, inputs = Linear(96, 384), torch.randn(200, 96)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(prepared(layer, 1)(inputs), prepared(layer, MANY_ROWS)(inputs))
