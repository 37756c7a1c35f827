"""Checkpoints appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from maskformer.training.checkpoint import load_state, recover, replace_folder, save_model


def write(folder, text: str) -> None:
    """A folder of one file."""
    with replace_folder(folder) as new:
        (new / "a.txt").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "last", "one")
    (tmp_path / "last" / "stale.txt").write_text("from before")
    write(tmp_path / "last", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["a.txt"]
    assert (tmp_path / "last" / "a.txt").read_text() == "two"


def test_an_error_while_writing_keeps_the_earlier_folder(tmp_path):
    write(tmp_path / "last", "one")
    with pytest.raises(OSError), replace_folder(tmp_path / "last") as new:
        (new / "a.txt").write_text("half")
        raise OSError("no space left on device")
    assert (tmp_path / "last" / "a.txt").read_text() == "one"
    write(tmp_path / "last", "two")
    assert (tmp_path / "last" / "a.txt").read_text() == "two"


def test_a_crash_in_the_middle_of_the_exchange_is_mended(tmp_path):
    write(tmp_path / "last", "one")
    (tmp_path / "last").rename(tmp_path / ".last.old")
    recover(tmp_path / "last")
    assert (tmp_path / "last" / "a.txt").read_text() == "one"


def test_the_only_model_survives_a_crash_and_a_failure_after_it(tmp_path):
    write(tmp_path / "last", "one")
    (tmp_path / "last").rename(tmp_path / ".last.old")
    with pytest.raises(OSError), replace_folder(tmp_path / "last"):
        raise OSError("no space left on device")
    assert (tmp_path / "last" / "a.txt").read_text() == "one"


def test_a_failed_exchange_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "last", "one")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".new"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError):
        write(tmp_path / "last", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert (tmp_path / "last" / "a.txt").read_text() == "one"


def test_links_and_parents_are_followed(tmp_path):
    write(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "two")
    write(tmp_path / "real" / ".." / "other", "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "other", "real"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "two"


def test_state_comes_back_and_its_absence_is_named(tiny_model, tmp_path):
    processor = type("Processor", (), {"save_pretrained": lambda self, folder: None})()
    save_model(tmp_path / "last", tiny_model(), processor, {"step": 3, "best": {"pq": 0.5}})
    assert load_state(tmp_path / "last") == {"step": 3, "best": {"pq": 0.5}}
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        load_state(tmp_path / "nothing")
