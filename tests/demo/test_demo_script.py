"""`scripts/demo.py`, up to where it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from helpers import ROOT
from maskformer import MaskFormerUniversalImageProcessorPil
from script_runs import fails, run


def test_without_a_model_it_says_how_to_get_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    last = fails(capsys, "demo").splitlines()[-1]
    assert "outputs/demo/best does not exist; run `make demo`" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], "nowhere is not a model folder"),
        (["--model", "nowhere", "--port", "70000"], "--port is 70000; ports are 1 to 65535"),
        (["--model", "nowhere", "--seconds", "nan"], "--seconds is nan; it must lie between 0 and 3600"),
    ],
)
def test_errors_are_for_people(capsys, words, message):
    assert message in fails(capsys, "demo", *words)


def test_an_examples_folder_that_is_missing_is_named(tiny_model, tmp_path, capsys):
    tiny_model().save_pretrained(tmp_path)
    MaskFormerUniversalImageProcessorPil().save_pretrained(tmp_path)
    message = fails(capsys, "demo", "--model", tmp_path, "--examples", tmp_path / "none")
    assert f"{tmp_path / 'none'}: there is no such folder of examples" in message


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit):
        run("demo", "--help")
    assert "python scripts/demo.py --model outputs/demo/best" in capsys.readouterr().out


@pytest.mark.slow
def test_it_serves_until_it_is_stopped_and_leaves_no_files(tiny_model, tmp_path, free_port):
    tiny_model().save_pretrained(tmp_path / "model")
    MaskFormerUniversalImageProcessorPil().save_pretrained(tmp_path / "model")
    files = tmp_path / "temporary"
    files.mkdir()
    words = [sys.executable, ROOT / "scripts" / "demo.py", "--model", tmp_path / "model", "--port", str(free_port)]
    environment = os.environ | {"TMPDIR": str(files)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline().startswith("loading ")
        assert f"http://127.0.0.1:{free_port}/" in process.stdout.readline()
        assert [path.name.startswith("maskformer_demo_") for path in files.iterdir()].count(True) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list(files.glob("maskformer_demo_*"))
