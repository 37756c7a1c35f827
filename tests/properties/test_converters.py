"""Weights to the official layout and back, with entries that do not fit; files of weights with changed bytes."""

from __future__ import annotations

import builtins
import io
import pickle
import pickletools
import resource
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from maskformer import MaskFormerUniversalConfig, PerPixelBaselineConfig
from maskformer.convert import from_official, to_official
from maskformer.convert.official import layout
from maskformer.convert.weights import read_weights
from property_settings import FEW, MANY, holds_for, run, seeds

NARROW = {
    "feature_size": 32,
    "mask_feature_size": 16,
    "hidden_size": 32,
    "intermediate_size": 16,
    "decoder_layers": 1,
    "backbone_kwargs": {"layers": (1, 1, 1, 1)},
}
KINDS = {
    "maskformer": (MaskFormerUniversalConfig, {}),
    "with an encoder": (MaskFormerUniversalConfig, {"pixel_decoder_encoder_layers": 1, "pre_norm": True}),
    "batch norm that counts": (MaskFormerUniversalConfig, {"freeze_batch_norm": False}),
    "per pixel": (PerPixelBaselineConfig, {}),
}
MOST_MEMORY = 64 * 2**10  # KiB that reading a file of a few hundred bytes may take
# What a file must not be able to bring about; each is pushed onto the stack, and taken off again.
FRAGMENTS = [
    b"cbuiltins\nexec\n\x8c\x24import builtins; builtins.CODE_RAN = 1\x85R0",
    b"cos\nsystem\n\x8c\x04true\x85R0",
    b"\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R0",
    b"ios\nsystem\n.",
    b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R0",
    b"ctorch\nSize\nJ\xff\xff\xff\x7f\x85\x85R0",
    b"r\xff\xff\xff\x7f",
    b"p2147483647\n",
    b"\x8d\xff\xff\xff\xff\xff\x00\x00\x00",
    b"\x8e\xff\xff\xff\xff\x03\x00\x00\x00",
    b"\x96\xff\xff\xff\xff\x03\x00\x00\x00",
    b"\x95\xff\xff\xff\xff\xff\xff\x00\x00",
    b"\x8b\xff\xff\xff\x7f",
    b"}" + b")" + b"2\x86" * 70 + b"Ns0",
    b"]" + b"2\x86" * 70 + b"0",
    b")" + b"\x85" * 5000 + b"0",
    b"\x82\x010",
    b"NQ0",
    b"0",
    b"2",
    b"(",
    b"1",
    b"\x81",
    b"R",
    b"b",
]


@cache
def weights(kind: str):
    """A configuration, our weights for it with values of their own, and the official ones, of which they come."""
    config_class, fields = KINDS[kind]
    config = config_class(**(NARROW | fields), id2label={index: str(index) for index in range(3)})
    draw = torch.Generator().manual_seed(0)
    ours = {
        name: torch.randn(value.shape, generator=draw)
        if value.is_floating_point()
        else torch.zeros((), dtype=torch.int64)
        for name, value in layout(config).items()
    }
    return config, ours, to_official(ours, config)


def to_v1(official: dict) -> dict:
    """The layout of published files."""
    names = {name: name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.") for name in official}
    return {names[name]: value for name, value in official.items()}


def changed(entries: dict, name: str, change: str, draw) -> dict:
    """`entries` of which one is missing, of another shape, under another name, or there twice."""
    entries, value = dict(entries), entries[name]
    if change == "missing":
        del entries[name]
    elif change == "longer":
        entries[name] = torch.cat([value, value]) if value.ndim else value[None]
    elif change == "one more axis":
        entries[name] = value[None]
    elif change == "renamed":
        entries[name + "_"] = entries.pop(name)
    else:
        entries[f"{name}.{draw.integers(10)}"] = value
    order = draw.permutation(len(entries))
    items = list(entries.items())
    return dict(items[i] for i in order)


@holds_for(
    many=1000,
    seed=seeds,
    kind=st.sampled_from([*KINDS]),
    change=st.sampled_from(["nothing", "missing", "longer", "one more axis", "renamed", "left over"]),
    form=st.sampled_from(["v1", "v2", "arrays"]),
)
def test_official_weights_are_converted_or_the_wrong_entry_is_named(seed, kind, change, form):
    config, ours, official = weights(kind)
    draw = np.random.default_rng(seed)
    given = to_v1(official) if form == "v1" else dict(official)
    given = {name: value.numpy() for name, value in given.items()} if form == "arrays" else given
    if change == "nothing":
        converted = from_official(given, config)
        assert converted.keys() == ours.keys()
        assert all(torch.equal(value, ours[name]) for name, value in converted.items())
        return
    tensors = {name: torch.as_tensor(value) for name, value in given.items()}
    names = [name for name in tensors if name != "criterion.empty_weight"]  # which may be missing
    name = names[draw.integers(len(names))]
    with pytest.raises(ValueError, match="these are not the weights of an official") as error:
        from_official(changed(tensors, name, change, draw), config)
    shown = name.replace("sem_seg_head.", "sem_seg_head.pixel_decoder.") if form == "v1" else name
    assert (name in str(error.value)) or shown in str(error.value)


@holds_for(
    many=1000,
    seed=seeds,
    kind=st.sampled_from([*KINDS]),
    change=st.sampled_from(["nothing", "missing", "longer", "one more axis", "renamed", "left over"]),
)
def test_our_weights_are_converted_or_the_wrong_entry_is_named(seed, kind, change):
    config, ours, official = weights(kind)
    draw = np.random.default_rng(seed)
    if change == "nothing":
        converted = to_official(ours, config)
        assert converted.keys() == official.keys()
        assert all(torch.equal(value, official[name]) for name, value in converted.items())
        return
    name = list(ours)[draw.integers(len(ours))]
    with pytest.raises(ValueError, match="these are not the weights of a ") as error:
        to_official(changed(ours, name, change, draw), config)
    assert name in str(error.value)


@cache
def files() -> list[bytes]:
    """Small files of weights of every kind."""
    arrays = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.float64(1.5), "c": np.asfortranarray(np.eye(2))}
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.nn.Parameter(torch.ones(2)), "c": torch.eye(2).t()}
    found = [pickle.dumps({"model": arrays}, protocol=protocol) for protocol in (2, 3, 4, 5)]
    found.append(pickle.dumps({"model": tensors}, protocol=2))
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 3}, buffer, _use_new_zipfile_serialization=zipped)
        found.append(buffer.getvalue())
    return found


def instructions(content: bytes) -> list[int]:
    """Where the instructions of the first pickle begin that follows its start, as far as they can be read."""
    first, places = content.find(b"\x80\x02") if content[:1] == b"P" else 0, []
    try:
        for _, _, position in pickletools.genops(content[max(0, first) :]):
            places.append(max(0, first) + position)
    except ValueError:
        pass  # the rest is damaged
    return places[1:]


def damaged(draw, content: bytes, kind: str) -> bytes:
    """With bytes of other values, missing, there twice; cut short; or with instructions that nobody asked for."""
    content, place = bytearray(content), int(draw.integers(len(content)))
    if kind == "bytes":
        for _ in range(draw.integers(1, 6)):
            content[draw.integers(len(content))] = draw.integers(256)
    elif kind == "bits":
        content[place] ^= 1 << int(draw.integers(8))
    elif kind == "cut":
        del content[place:]
    elif kind == "missing":
        del content[place : place + int(draw.integers(1, 9))]
    elif kind == "twice":
        content[place:place] = content[place : place + int(draw.integers(1, 40))]
    else:
        places = instructions(bytes(content)) or [place]
        place = places[draw.integers(len(places))]
        content[place:place] = FRAGMENTS[draw.integers(len(FRAGMENTS))]
    return bytes(content)


@pytest.mark.parametrize("examples", [FEW, pytest.param(4 * MANY, marks=pytest.mark.slow)])
def test_damaged_files_are_weights_or_one_error(examples, tmp_path):
    """Nothing else is raised, nothing of the file is run, and memory stays within what its size asks for."""
    path = tmp_path / "weights.pth"

    def check(seed, which, kinds):
        draw = np.random.default_rng(seed)
        content = files()[which]
        for kind in kinds:
            content = damaged(draw, content, kind) or b"\x80"
        path.write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            tensors = read_weights(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in tensors.items())
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
        assert not hasattr(builtins, "CODE_RAN")

    one = st.sampled_from(["bytes", "bits", "cut", "missing", "twice", "instructions", "instructions"])
    run(check, examples, seed=seeds, which=st.integers(0, 6), kinds=st.lists(one, min_size=1, max_size=2))
