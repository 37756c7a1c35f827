"""Names of files that lead out of their folder, and those that do not."""

from __future__ import annotations

import pytest

from maskformer.data.files import inside


@pytest.mark.parametrize("name", ["a.jpg", "sub/a.jpg", "sub/../a.jpg", "..a.jpg", "./a.jpg"])
def test_names_within_the_folder_are_its_paths(tmp_path, name):
    assert inside(tmp_path, name, "entry 1") == str(tmp_path / name)


def test_an_absolute_name_may_lie_in_the_folder(tmp_path):
    assert inside(tmp_path, str(tmp_path / "a.jpg"), "entry 1") == str(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["../a.jpg", "sub/../../a.jpg", "/etc/passwd", "..", "link/../../a.jpg"])
def test_names_that_lead_out_of_it_are_refused(tmp_path, name):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("sub")
    with pytest.raises(ValueError, match=f"entry 1: the file '{name}' lies outside of "):
        inside(folder, name, "entry 1")


def test_files_may_be_links_as_in_the_cache_of_the_hub(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.jpg").symlink_to("../blobs/1234")
    assert inside(tmp_path / "snapshot", "a.jpg", "entry 1") == str(tmp_path / "snapshot" / "a.jpg")
