"""Files of weights: what is read, and that nothing else is."""

from __future__ import annotations

import collections
import copy
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskformer.convert.weights import find_weights, read_folder, read_weights

ARRAYS = {
    "matrix": np.arange(12, dtype="f4").reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "counter": np.array(5),
    "big endian": np.arange(3, dtype=">i4"),
    "empty": np.zeros((0, 3), "f4"),
    "half": np.ones(3, "f2"),
    "bool": np.array([True, False]),
    "scalar": np.float32(3.5),
}
# {"model": {"a": array([1.5], float32)}} as Python 2 wrote it.
PYTHON_2 = (
    b"\x80\x02}q\x00U\x05modelq\x01}q\x02U\x01aq\x03cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K"
    b"\x00\x85q\x06U\x01bq\x07\x87q\x08Rq\t(K\x01K\x01\x85q\ncnumpy\ndtype\nq\x0bU\x02f4q\x0cK\x00K\x01\x87q\rRq\x0e(K"
    b"\x03U\x01<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x10b\x89U\x04\x00\x00\xc0?q\x11tq\x12bss."
)


def tensors() -> dict[str, torch.Tensor]:
    """Tensors of several types, a transposed one, a part of another, and a parameter."""
    numbers = torch.Generator().manual_seed(0)
    return {
        "float": torch.randn(3, 4, generator=numbers),
        "double": torch.randn(2, dtype=torch.float64, generator=numbers),
        "bfloat16": torch.randn(5, generator=numbers).bfloat16(),
        "transposed": torch.randn(4, 5, generator=numbers).t(),
        "part": torch.arange(10)[3:7],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "counter": torch.tensor(7),
        "empty": torch.zeros(0, 2),
    }


def same(found: dict, expected: dict) -> bool:
    """Whether names, types and values are equal."""
    pairs = [(found[name], torch.as_tensor(value)) for name, value in expected.items()]
    return found.keys() == expected.keys() and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_arrays(tmp_path, protocol):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": ARRAYS, "__author__": "me", "iteration": 3}, protocol=protocol))
    native = {name: value.astype(value.dtype.newbyteorder("=")) for name, value in ARRAYS.items()}
    assert same(read_weights(path), native)


def test_pickles_of_both_numpy_versions_and_of_python_2(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(PYTHON_2)
    assert same(read_weights(path), {"a": torch.tensor([1.5])})
    path.write_bytes(PYTHON_2.replace(b"numpy.core.multiarray", b"numpy._core.multiarray"))
    assert same(read_weights(path), {"a": torch.tensor([1.5])})


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_files_of_tensors(tmp_path, form, protocol):
    path = tmp_path / "weights.pth"
    if form == "plain pickle":  # as the official script writes Swin's
        path.write_bytes(pickle.dumps({"model": tensors(), "matching_heuristics": True}, protocol=protocol))
    else:
        torch.save({"model": tensors()}, path, _use_new_zipfile_serialization=form == "zip", pickle_protocol=protocol)
    assert same(read_weights(path), tensors())


@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoints_and_bare_state_dicts(tmp_path, zipped):
    path, model = tmp_path / "weights.pth", torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    extras = {"iteration": 7, "best": np.float64(0.5), "milestones": collections.Counter([1, 2]), "ids": {1, 2}}
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **extras}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path), model.state_dict())
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path), model.state_dict())


def test_safetensors_in_one_file_and_in_parts(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert same(read_folder(tmp_path), {"a": torch.ones(2)})
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="not the folder of a model"):
        read_folder(tmp_path)
    index = '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert same(read_folder(tmp_path), {"a": torch.ones(2), "b": torch.zeros(3)})


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def saved(content, **options) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def a_zip() -> bytes:
    """A zip of something else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/readme.txt", "hello")
    return buffer.getvalue()


ZIP, LEGACY = saved({"a": torch.ones(99)}), saved({"a": torch.ones(99)}, _use_new_zipfile_serialization=False)
PICKLE = pickle.dumps({"model": ARRAYS})
BAD = {
    "code": (pickle.dumps({"model": Evil()}), "refused, because it asks for builtins.exec"),
    "code beside weights": (pickle.dumps({"model": ARRAYS, "x": Evil()}), "refused, because it asks for builtins.exec"),
    "code in a zip": (saved({"a": torch.ones(2), "x": Evil()}), "refused, because it asks for __builtin__.exec"),
    "code in a legacy file": (
        saved({"a": torch.ones(2), "x": Evil()}, _use_new_zipfile_serialization=False),
        "refused, because it asks for __builtin__.exec",
    ),
    "code by a state": (b"\x80\x02cfunctools\npartial\nq\x00.", "refused, because it asks for functools.partial"),
    "code by an extension": (b"\x80\x02\x82\x01.", "asks for an object by its extension code 1"),
    "a module": (pickle.dumps(torch.nn.Linear(2, 2)), "refused, because it asks for torch.nn.modules.linear.Linear"),
    "objects": (
        pickle.dumps({"model": {"a": np.array([1, None], dtype=object)}}),
        "numbers are read only, not of 'O8'",
    ),
    "objects with code": (pickle.dumps({"a": np.array([Evil()], dtype=object)}), "it asks for builtins.exec"),
    "records": (pickle.dumps({"a": np.zeros(3, dtype=[("x", "f4")])}), "numbers are read only"),
    "text array": (pickle.dumps({"a": np.array(["x"])}), "numbers are read only"),
    "too few bytes": (pickle.dumps({"a": np.ones(3, "f4")}).replace(b"K\x03\x85", b"K\x63\x85"), "the bytes it needs"),
    "beyond the storage": (pickle.dumps({"a": torch.ones(4)}).replace(b"K\x04\x85", b"K\x63\x85"), "out of bounds"),
    "cut zip": (ZIP[: len(ZIP) // 2], "damaged"),
    "cut legacy": (LEGACY[:-10], "cut short"),
    "cut legacy pickle": (LEGACY[:150], "damaged"),
    "cut pickle": (PICKLE[:-9], "damaged"),
    "another zip": (a_zip(), "this zip is no checkpoint"),
    "empty": (b"", "the file is empty"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "neither a pickle"),
    "a list": (pickle.dumps([1, 2]), "maps names to tensors; this one holds list"),
    "no weights": (pickle.dumps({}), "maps names to tensors"),
    "a number": (pickle.dumps({"a": 3}), "a: it holds int where an array or tensor was expected"),
    "no name": (pickle.dumps({1: np.ones(2)}), "1 is no name"),
    "a cycle": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "a: it holds dict"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_weights(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_refused_name_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "weights.pkl").write_bytes(b"\x80\x02ctrap_module\nanything\n.")
    with pytest.raises(ValueError, match="it asks for trap_module.anything"):
        read_weights(tmp_path / "weights.pkl")


@pytest.mark.parametrize("content", [b"", b"garbage garbage garbage"])
def test_bad_safetensors_are_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_weights(tmp_path / "model.safetensors")


def test_names_of_the_hub(tmp_path, monkeypatch):
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        if file.endswith(".safetensors"):
            raise OSError("no such file\non the Hub")
        return str(tmp_path / file)

    monkeypatch.setattr("maskformer.convert.weights.hf_hub_download", download)
    assert find_weights("timm/resnet50.a1_in1k") == tmp_path / "pytorch_model.bin"
    find_weights("hf-hub:someone/some-model")
    assert [repository for repository, _ in asked[::2]] == ["timm/resnet50.a1_in1k", "someone/some-model"]
    monkeypatch.setattr("maskformer.convert.weights.FILES", ["model.safetensors"])
    with pytest.raises(ValueError, match="the Hub did not give it .model.safetensors: no such file on the Hub"):
        find_weights("timm/resnet50.a1_in1k")
    assert find_weights(str(tmp_path / "x.pth")) == tmp_path / "x.pth"


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{"])
def test_bad_indices_are_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json: this needs a weight_map"):
        read_folder(tmp_path)


@pytest.mark.parametrize("package", ["os", "a.b.c", "", "no_such_package"])
def test_what_is_no_package_is_refused(package):
    with pytest.raises(ValueError, match="is not installed"):
        find_weights(f"package:{package}/x")


def test_compressed_zips_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
    with pytest.raises(ValueError, match="entries are compressed"):
        read_weights(tmp_path / "a.pth")


def test_pickles_that_would_fill_the_memory_and_types_alone_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # an empty dict, as object number 2**31 - 1
    with pytest.raises(ValueError, match="numbers an object 2147483647"):
        read_weights(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"a": np.dtype("f4")}))
    with pytest.raises(ValueError, match="a: it holds numpy.dtype where an array"):
        read_weights(tmp_path / "b.pkl")


@pytest.mark.parametrize("container", [b"%s", b"ctorch\nSize\n(%st\x85R"], ids=["tuples", "through torch.Size"])
def test_tuples_nested_so_deep_that_hashing_would_crash_are_refused(tmp_path, container):
    """As a key of a dict: Python hashes it by recursion in C, and the process would be gone."""
    for depth, message in ((1_000_000, "nests tuples more than 100 deep"), (3, "is no name|a shape is at most")):
        key = container % (b")" + b"\x85" * depth)
        (tmp_path / "a.pkl").write_bytes(b"\x80\x02}" + key + b"K\x01s.")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "a.pkl")


def test_remembered_tuples_count_as_deep_as_they_are(tmp_path):
    wrapped = b")" + b"\x85q\x00h\x00\x86" * 60  # each pair holds the same remembered tuple twice
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}" + wrapped + b"K\x01s.")
    with pytest.raises(ValueError, match="nests tuples|damaged"):
        read_weights(tmp_path / "a.pkl")


def test_zips_whose_entries_overlap_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(1000))
        archive.filelist += [copy.copy(archive.getinfo("a/data/0")) for _ in range(3)]  # the same bytes, listed again
    with pytest.raises(ValueError, match="entries overlap"):
        read_weights(path)
