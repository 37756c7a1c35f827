"""What goes to the Hub: code, weights and a card that says how to use the model. The Hub is a dictionary here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError


@pytest.fixture
def hub(monkeypatch) -> dict[str, bytes]:
    """The files of the repository `someone/scenes`."""
    files = {}

    def create_commit(self, repo_id, operations, **kwargs):
        files.update({operation.path_in_repo: Path(operation.path_or_fileobj).read_bytes() for operation in operations})
        return "the commit"

    def load(repo_id, **kwargs):
        if "README.md" not in files:
            raise EntryNotFoundError("there is no README.md")
        return ModelCard(files["README.md"].decode())

    def upload_file(self, path_or_fileobj, path_in_repo, **kwargs):
        files[path_in_repo] = path_or_fileobj

    monkeypatch.setattr(HfApi, "create_repo", lambda *args, **kwargs: SimpleNamespace(repo_id="someone/scenes"))
    monkeypatch.setattr(HfApi, "file_exists", lambda self, repo_id, name, **kwargs: name in files)
    monkeypatch.setattr(HfApi, "upload_file", upload_file)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr(HfApi, "create_branch", lambda *args, **kwargs: None)
    monkeypatch.setattr(ModelCard, "load", load)
    return files


def test_code_weights_and_card(tiny_model, hub):
    tiny_model().push_to_hub("scenes", tags=["panoptic-segmentation"])
    assert {"config.json", "model.safetensors", "modeling_maskformer.py", "README.md"} <= set(hub)
    card = ModelCard(hub["README.md"].decode())
    assert 'model="someone/scenes"' in card.text and "label 3" in card.text
    assert card.data.pipeline_tag == "image-segmentation"
    assert set(card.data.tags) == {"maskformer", "panoptic-segmentation"}


def test_a_card_that_is_there_stays(tiny_per_pixel_model, hub):
    hub["README.md"] = b"---\nlicense: mit\n---\n\nMine."
    tiny_per_pixel_model().push_to_hub("scenes")
    assert hub["README.md"].endswith(b"Mine.")


@pytest.mark.parametrize("how", [{"create_pr": True}, {"revision": "v1"}])
def test_pull_requests_and_branches_have_the_card_too_and_main_nothing(tiny_model, hub, monkeypatch, how):
    monkeypatch.setattr(HfApi, "upload_file", lambda *args, **kwargs: pytest.fail("went to the main branch"))
    assert tiny_model().push_to_hub("scenes", **how) == "the commit"
    assert 'model="someone/scenes"' in hub["README.md"].decode()


def test_saving_and_pushing_at_once(tiny_model, hub, tmp_path):
    tiny_model().save_pretrained(tmp_path / "scenes", push_to_hub=True)
    assert 'model="someone/scenes"' in hub["README.md"].decode()
    assert "label 3" in (tmp_path / "scenes" / "README.md").read_text()


def test_the_licence_of_the_weights_stays_with_them(tiny_model, hub, tmp_path):
    model = tiny_model(weights_license="cc-by-nc-4.0")
    model.save_pretrained(tmp_path)
    type(model).from_pretrained(tmp_path).push_to_hub("scenes")
    assert ModelCard(hub["README.md"].decode()).data.license == "cc-by-nc-4.0"
