"""The two folder sources: what they read, and what they say of bad files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from folders import edit_json, write_json, write_panoptic_folder, write_semantic_folder
from maskformer.data.example import BadSample, semantic_map
from maskformer.data.panoptic_folder import load_panoptic_folder
from maskformer.data.semantic_folder import load_semantic_folder
from maskformer.data.shapes import SHAPES_LABELS, render_scene


def test_a_panoptic_folder_gives_back_the_scenes_it_was_made_of(tmp_path):
    source = load_panoptic_folder(write_panoptic_folder(tmp_path))
    assert len(source) == 4
    assert source.labels.names == SHAPES_LABELS.names
    assert source.labels.is_thing == SHAPES_LABELS.is_thing
    for index in range(4):
        expected, actual = render_scene("train", index), source[index]
        for key in ("image", "segmentation"):
            np.testing.assert_array_equal(actual[key], expected[key])
        assert actual["segments_info"] == expected["segments_info"]


def test_rows_are_arrow_and_stream(tmp_path):
    source = load_panoptic_folder(write_panoptic_folder(tmp_path, count=2))
    streamed = [source.decode(row)["image_id"] for row in source.rows.to_iterable_dataset()]
    assert streamed == ["0", "1"]


def test_an_image_that_is_all_void_is_an_example_without_segments(tmp_path):
    folder = write_panoptic_folder(tmp_path, count=1)
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(folder / "panoptic" / "0.png")
    edit_json(folder / "panoptic.json", lambda content: content["annotations"][0].update(segments_info=[]))
    example = load_panoptic_folder(folder)[0]
    assert example["segments_info"] == [] and not example["segmentation"].any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "images" / "0.png").unlink(), r"images/0.png: there is no such image"),
        (lambda f: (f / "images" / "0.png").write_bytes(b"no image"), r"images/0.png: not a readable image"),
        (lambda f: (f / "panoptic" / "0.png").unlink(), r"panoptic/0.png: there is no such panoptic PNG"),
        (
            lambda f: Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(f / "panoptic" / "0.png"),
            r"panoptic/0.png: \(9, 9\) pixels, but its image has \(128, 128\)",
        ),
        (
            lambda f: edit_json(f / "panoptic.json", lambda c: c["annotations"][0]["segments_info"].pop()),
            r"panoptic/0.png: the segment ids \[\d+\] are in the map, but not in segments_info",
        ),
    ],
)
def test_bad_panoptic_samples_are_named(tmp_path, damage, message):
    folder = write_panoptic_folder(tmp_path, count=1)
    damage(folder)
    source = load_panoptic_folder(folder)
    with pytest.raises(BadSample, match=message):
        source[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("categories"), "the list 'categories' is missing"),
        (lambda c: c["categories"][1].pop("name"), "categories: entry 1 has no 'name'"),
        (lambda c: c["categories"][1].update(id=10), "entries 0 and 1 share the id 10"),
        (
            lambda c: c["categories"][1].update(name=c["categories"][0]["name"]),
            "entry 1 has the name '.*' of an earlier",
        ),
        (lambda c: c["categories"].insert(0, 3), "categories: entry 0 is no mapping"),
        (lambda c: c["images"].insert(0, 3), "image 0 is 3, not a mapping"),
        (lambda c: c["annotations"].insert(0, 3), "annotation 0 is 3, not a mapping"),
        (lambda c: c["annotations"][0].update(segments_info=None), "annotation 0: segments_info must be a list"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotation 1: image_id 0 has an annotation already"),
        (
            lambda c: c["annotations"][0]["segments_info"].append(c["annotations"][0]["segments_info"][0]),
            r"annotation 0: segments_info has the id \d+ twice",
        ),
        (lambda c: c["annotations"].clear(), "the dataset is empty"),
        (lambda c: c["annotations"][0].pop("file_name"), "annotation 0 has no 'file_name'"),
        (lambda c: c["annotations"][0].update(image_id=77), "annotation 0: image_id 77 is not among the images"),
        (lambda c: c["annotations"][0].update(file_name="../../x.png"), "'../../x.png' lies outside"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=99), "annotation 0: segment .*99"),
    ],
)
def test_bad_panoptic_json_is_named(tmp_path, damage, message):
    folder = write_panoptic_folder(tmp_path, count=1)
    edit_json(folder / "panoptic.json", damage)
    with pytest.raises(ValueError, match=message):
        load_panoptic_folder(folder)


def test_a_panoptic_json_that_is_missing_or_does_not_parse_is_named(tmp_path):
    with pytest.raises(ValueError, match="panoptic.json: there is no such file"):
        load_panoptic_folder(tmp_path)
    (tmp_path / "panoptic.json").write_text("{")
    with pytest.raises(ValueError, match="panoptic.json: not valid JSON"):
        load_panoptic_folder(tmp_path)


def test_a_semantic_folder_gives_one_segment_a_label(tmp_path):
    source = load_semantic_folder(write_semantic_folder(tmp_path))
    assert len(source) == 3 and source.labels.names == ("road", "car", "sky")
    assert source.labels.stuff_ids == [0, 1, 2]
    for index in range(3):
        labels = np.array(Image.open(tmp_path / "labels" / f"{index}.png"))
        example = source[index]
        np.testing.assert_array_equal(semantic_map(example), labels)
        present = sorted({int(value) for value in np.unique(labels)} - {255})
        assert [info["label_id"] for info in example["segments_info"]] == present


def test_reduce_labels_counts_from_one_and_makes_zero_void(tmp_path):
    folder = write_semantic_folder(tmp_path, count=1)
    values = np.array([[0, 1, 2, 3], [255, 3, 2, 1]], np.uint8).repeat(20, 0).repeat(14, 1)
    Image.fromarray(values).save(folder / "labels" / "0.png")
    labels = semantic_map(load_semantic_folder(folder, reduce_labels=True)[0])
    expected = np.array([[255, 0, 1, 2], [255, 2, 1, 0]]).repeat(20, 0).repeat(14, 1)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("mode", ["palette", "16-bit"])
def test_label_maps_of_other_modes(tmp_path, mode):
    folder = write_semantic_folder(tmp_path, count=1)
    values = np.array([[0, 1], [2, 255]], np.uint8).repeat(20, 0).repeat(28, 1)
    if mode == "palette":
        picture = Image.fromarray(values, "P")
        picture.putpalette([200, 10, 10] * 256)
    else:
        picture = Image.fromarray(values.astype(np.uint16))
    picture.save(folder / "labels" / "0.png")
    np.testing.assert_array_equal(semantic_map(load_semantic_folder(folder)[0]), values)


def test_labels_outside_of_the_set_are_named_with_what_may_be_meant(tmp_path):
    folder = write_semantic_folder(tmp_path, count=1)
    Image.fromarray(np.full((40, 56), 3, np.uint8)).save(folder / "labels" / "0.png")
    with pytest.raises(BadSample, match=r"labels/0.png: the values \[3\] are no labels.*0 to 2.*reduce_labels"):
        load_semantic_folder(folder)[0]


def test_a_map_that_is_not_turned_as_exif_turns_its_image_is_named(tmp_path):
    folder = write_semantic_folder(tmp_path, count=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (56, 40)).save(folder / "images" / "0.jpg", exif=exif)
    with pytest.raises(BadSample, match=r"\(40, 56\) pixels, but its image has \(56, 40\); .* EXIF"):
        load_semantic_folder(folder)[0]


def test_coloured_label_maps_and_empty_folders_are_refused(tmp_path):
    folder = write_semantic_folder(tmp_path / "a", count=1)
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(folder / "labels" / "0.png")
    with pytest.raises(BadSample, match="one channel"):
        load_semantic_folder(folder)[0]
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"labels.json: there is no such file"):
        load_semantic_folder(tmp_path / "b")
    write_json(tmp_path / "b" / "labels.json", ["a"])
    with pytest.raises(ValueError, match="the dataset is empty"):
        load_semantic_folder(tmp_path / "b")


def test_label_names_may_be_a_dict_or_categories(tmp_path):
    folder = write_semantic_folder(tmp_path, count=1)
    write_json(folder / "labels.json", {"0": "road", "1": "car", "2": "sky"})
    assert load_semantic_folder(folder).labels.names == ("road", "car", "sky")
    write_json(folder / "labels.json", {"road": 0, "car": 1, "sky": 2})
    assert load_semantic_folder(folder).labels.id2label == {0: "road", 1: "car", 2: "sky"}
    for content, message in (([1, 2], "entry 0 is 1"), ({"road": "a"}, "'road' is no pixel value"), (7, "a list of")):
        write_json(folder / "labels.json", content)
        with pytest.raises(ValueError, match=f"labels.json: {message}"):
            load_semantic_folder(folder)
    write_json(folder / "labels.json", [{"id": 2, "name": "sky", "color": [1, 2, 3]}, {"id": 0, "name": "road"}])
    labels = load_semantic_folder(folder).labels
    assert labels.source_ids == (2, 0) and labels.colors[0] == (1, 2, 3)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["categories"][0].update(color="red"), "entry 0: the color 'red' is neither"),
        (lambda c: c["categories"][0].update(color=[1, 2, 300]), "entry 0: the color .* is neither"),
        (lambda c: c["categories"][1].update(id=[]), "entry 1: the id \\[\\] is no whole number"),
        (lambda c: c["categories"][1].update(id="5"), "entry 1: the id '5' is no whole number"),
        (lambda c: c["categories"][1].update(id=True), "entry 1: the id True is no whole number"),
        (lambda c: c["categories"][1].update(id=10**30), "entry 1: the id 1000.* is no whole number"),
        (lambda c: c["categories"][0].update(isthing="0"), "entry 0: isthing is '0'; it must be 0 or 1"),
        (lambda c: c["annotations"][0].update(file_name=7), "annotation 0: file_name is 7; the name of a PNG"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd="0"), "annotation 0: iscrowd is '0'"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(id=10**30), "needs an integer id"),
        (
            lambda c: c["images"].append({**c["images"][0], "id": "0"}),
            "image 1: an earlier image has the id",
        ),
    ],
)
def test_fields_of_another_kind_are_named(tmp_path, edit, message):
    folder = write_panoptic_folder(tmp_path, count=1)
    edit_json(folder / "panoptic.json", edit)
    with pytest.raises(ValueError, match=f"panoptic.json: .*{message}"):
        load_panoptic_folder(folder)


def test_what_annotation_tools_and_windows_write_is_read(tmp_path):
    folder = write_panoptic_folder(tmp_path, count=1)
    edit_json(folder / "panoptic.json", lambda c: c["categories"][0].update(color="#8a2be2"))
    edit_json(folder / "panoptic.json", lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd=None))
    path = folder / "panoptic.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark
    source = load_panoptic_folder(folder)
    assert source.labels.colors[0] == (0x8A, 0x2B, 0xE2) and source[0]["segments_info"][0]["iscrowd"] == 0


def test_files_that_cannot_be_json_are_named(tmp_path):
    (tmp_path / "panoptic.json").mkdir()
    with pytest.raises(ValueError, match="panoptic.json: cannot be read"):
        load_panoptic_folder(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "panoptic.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="panoptic.json: not valid JSON"):
        load_panoptic_folder(tmp_path / "deep")


def test_two_images_of_one_name_are_refused_and_upper_case_maps_are_found(tmp_path):
    folder = write_semantic_folder(tmp_path, count=2)
    expected = semantic_map(load_semantic_folder(folder)[0])
    (folder / "labels" / "0.png").rename(folder / "labels" / "0.PNG")
    np.testing.assert_array_equal(semantic_map(load_semantic_folder(folder)[0]), expected)
    (folder / "images" / "1.png").write_bytes((folder / "images" / "1.jpg").read_bytes())
    with pytest.raises(ValueError, match="images: 1.jpg and 1.png have one name, which is their image id"):
        load_semantic_folder(folder)


def test_an_image_that_is_a_broken_link_is_named(tmp_path):
    folder = write_semantic_folder(tmp_path, count=1)
    (folder / "images" / "1.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = load_semantic_folder(folder)
    with pytest.raises(BadSample, match="1.jpg: there is no such image"):
        source[1]
