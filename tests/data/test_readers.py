"""The lie: 'this is the dataset', said of files as people have them, of which some were left out, mixed up or wrongly refused."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.data.readers import limits
from erasediff.data.readers.kinds import READERS, read
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig
from tests.data.written import WRITERS, hugging_face, images, npz, parquet_names, png, tar

LABELS = ["cat", "dog", "cat", "emu", "dog"]
PICTURES = [png(image) for image in images(5)]


@pytest.mark.parametrize("written_as", WRITERS)
def test_every_format_gives_the_same_dataset(tmp_path: Path, written_as: str) -> None:
    """Each image keeps its own label, and none is lost, in however many batches it was read."""
    kind, write = WRITERS[written_as]
    write(tmp_path, LABELS)
    raw = read(kind, tmp_path)
    found = sorted((image.tobytes(), label) for image, label in zip(raw.images[:][..., 0], raw.labels, strict=True))
    assert found == sorted((image.tobytes(), label) for image, label in zip(images(5), LABELS, strict=True))
    if written_as != "class folders":  # they come in order of their classes
        assert raw.labels == LABELS


@pytest.mark.parametrize("written_as", WRITERS)
def test_small_batches_give_the_same_dataset(tmp_path: Path, written_as: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that there is does not decide what the dataset is."""
    kind, write = WRITERS[written_as]
    write(tmp_path, LABELS)
    whole = read(kind, tmp_path)
    monkeypatch.setattr(limits, "MAX_BATCH", 2)
    parts = [batch.images for batch in READERS[kind](tmp_path, None)]
    assert [len(part) for part in parts] == [2, 2, 1], "control: they are small"
    again = read(kind, tmp_path)
    assert again.labels == whole.labels
    assert np.array_equal(again.images[:], whole.images[:])
    assert np.array_equal(np.concatenate(parts), whole.images[:])


def test_the_configuration_names_the_kinds_that_there_are() -> None:
    """No kind is promised that cannot be read, and none is hidden."""
    assert set(DatasetConfig.model_json_schema()["properties"]["kind"]["enum"]) == set(READERS)


def _write_csv(folder: Path, rows: list[list[str]]) -> None:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["file", "label"], *rows])


def _file(folder: Path, name: str, picture: int = 0) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(PICTURES[picture])


NFD = unicodedata.normalize("NFD", "zo\u00eb.png")
NAMED: dict[str, tuple[str, str]] = {
    "a colon": ("10:30.png", "10:30.png"),
    "a colon after one letter": ("a:b.png", "a:b.png"),
    "a backslash": ("a\\b.png", "a\\b.png"),
    "Windows' separator": ("sub/a.png", "sub\\a.png"),
    "a Mac's file, typed here": (NFD, "zo\u00eb.png"),
    "typed on a Mac": ("zo\u00eb.png", NFD),
    "a dot before the path": ("a.png", "./a.png"),
    "below a link": ("real/a.png", "linked/a.png"),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_row_finds_its_file(tmp_path: Path, what: str) -> None:
    """A name that another system wrote is not said to leave the folder or to be missing."""
    on_disk, in_row = NAMED[what]
    _file(tmp_path, on_disk)
    (tmp_path / "linked").symlink_to("real")
    rows = [[in_row, "cat"]] + ([["real/a.png", "cat"]] if what == "below a link" else [])
    _write_csv(tmp_path, rows)
    raw = read("folder", tmp_path)
    assert raw.labels == ["cat"] * len(rows)
    assert np.array_equal(raw.images[:][0, ..., 0], images(5)[0])


@pytest.mark.parametrize("row", ["..\\a.png", "sub\\..\\..\\a.png", "\\\\server\\a.png", "C:\\a.png", "C:a.png", "/a.png"])
def test_no_row_leaves_the_folder(tmp_path: Path, row: str) -> None:
    """Control of the test above: no spelling of a path reads another folder."""
    (tmp_path / "folder").mkdir()
    _file(tmp_path, "a.png")
    _write_csv(tmp_path / "folder", [[row, "cat"]])
    with pytest.raises(BadInput, match="leaves the folder"):
        read("folder", tmp_path / "folder")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A Mac would have kept one of them; which one a row means is not guessed."""
    _file(tmp_path, "zo\u00eb.png")
    _file(tmp_path, NFD)
    _write_csv(tmp_path, [["zo\u00eb.png", "cat"]])
    with pytest.raises(BadInput, match="spells the name of one file in two ways") as refused:
        read("folder", tmp_path)
    assert ascii(NFD) in str(refused.value)
    assert str(refused.value).isascii()


@pytest.mark.parametrize("end", ["\n", "\r\n\r\n", ",\n", " , \n\n", ""])
def test_blank_rows_at_the_end_are_no_rows(tmp_path: Path, end: str) -> None:
    """What a spreadsheet leaves behind is not an image without a label."""
    _file(tmp_path, "0.png")
    (tmp_path / "labels.csv").write_text(f"file,label\n0.png,cat\n{end}")
    assert read("folder", tmp_path).labels == ["cat"]
    (tmp_path / "labels.csv").write_text(f"file,label\n0.png,cat\n,cat\n{end}")
    with pytest.raises(BadInput, match="row 3"):
        read("folder", tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_do_on_any_system(tmp_path: Path, end: str) -> None:
    """Excel on a Mac ends them by a carriage return alone. A line's end within a name is the name's."""
    _file(tmp_path, "0.png")
    _file(tmp_path, "1.png", 1)
    (tmp_path / "labels.csv").write_bytes(end.join(["file,label", "0.png,cat", '1.png,"a\tb"', ""]).encode())
    assert read("folder", tmp_path).labels == ["cat", "a\tb"]


NO_CSV: dict[str, tuple[bytes, str]] = {
    "a huge field": (b"file,label\n0.png," + b"a" * 200_000, "row 2 of .* is not CSV .*field larger than field limit"),
    "an open quote": (b'file,label\n0.png,cat\n1.png,"dog\n', "row 3 of .* is not CSV .*unexpected end of data"),
    "a quote within": (b'file,label\n0.png,"c"at\n', "row 2 of .* is not CSV"),
    "another encoding": ("file,label\n0.png,zo\u00eb".encode("latin-1"), "is not in UTF-8 .*save it again as UTF-8"),
    "UTF-16": ("file,label\n0.png,cat".encode("utf-16"), "is not in UTF-8"),
    "no text": (bytes(range(128)), "does not begin with the header|is not CSV"),
}


@pytest.mark.parametrize("name", NO_CSV)
def test_what_is_no_csv_is_told_by_its_row(tmp_path: Path, name: str) -> None:
    """Not as a wrong encoding. Control: the same file with good rows is read."""
    _file(tmp_path, "0.png")
    (tmp_path / "labels.csv").write_bytes(b'\xef\xbb\xbffile,label\n0.png,"c ""at"""\n')
    assert read("folder", tmp_path).labels == ['c "at"'], "control"
    data, words = NO_CSV[name]
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(BadInput, match=words):
        read("folder", tmp_path)


BROKEN_CLASS_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "beside the folders": (lambda f: _file(f, "x.png"), r"image x\.png .*CLASS/FILE.*put it into the folder of its class"),
    "a split": (lambda f: _file(f, "train/cat/x.png"), r"image train/cat/x\.png .*give the folder that holds the folders of the classes"),
    "an empty class": (lambda f: (f / "emu").mkdir(), "folder emu in .* holds no pictures"),
    "a class that is a link": (lambda f: (f / "emu").symlink_to("cat"), "folder emu in .* is a link"),
    "a link to nothing": (lambda f: (f / "cat/z.png").symlink_to("gone.png"), r"cat/z\.png of the dataset is no file, or a link to none"),
    "a folder with a picture's name that is a link": (lambda f: (f / "cat/z.png").symlink_to(f / "cat"), r"z\.png of the dataset is no file"),
    "a pipe": (lambda f: os.mkfifo(f / "cat/z.png"), r"cat/z\.png of the dataset is no file"),
    "a link out": (lambda f: (f / "cat/z.png").symlink_to("/etc/hostname"), "link out of the folder"),
    "no picture": (lambda f: (f / "cat/z.png").write_bytes(b"hello"), r"cat/z\.png .*damaged"),
}


@pytest.mark.parametrize("name", BROKEN_CLASS_FOLDERS)
def test_class_folders_that_say_something_else_are_refused(tmp_path: Path, name: str) -> None:
    """``train`` and ``test`` do not become classes, and no picture is passed over."""
    for number, label in enumerate(LABELS[:2]):
        _file(tmp_path, f"{label}/{number}.PNG", number)
    _file(tmp_path, ".thumbs/0.png")
    _file(tmp_path, "cat/._0.png")
    (tmp_path / "cat/Thumbs.db").write_bytes(b"x")
    assert read("imagefolder", tmp_path).labels == ["cat", "dog"]
    damage, words = BROKEN_CLASS_FOLDERS[name]
    damage(tmp_path)
    with pytest.raises(BadInput, match=words):
        read("imagefolder", tmp_path)


def test_shards_below_are_found_and_not_mixed(tmp_path: Path) -> None:
    """Hugging Face's ``data/`` is found; with shards above it, or of another kind, none is left out without a word."""
    hugging_face(tmp_path, LABELS, "test")
    hugging_face(tmp_path, LABELS, "train")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.parquet").write_bytes(b"")
    assert read("shards", tmp_path).labels == LABELS * 2
    npz(tmp_path, LABELS)
    with pytest.raises(BadInput, match=r"both \.npz and \.parquet files"):
        read("shards", tmp_path)
    (tmp_path / "a.npz").unlink()
    parquet_names(tmp_path, LABELS)
    with pytest.raises(BadInput, match=r"shards of its own and data/.*\.parquet below it"):
        read("shards", tmp_path)


def test_class_labels_are_names(tmp_path: Path) -> None:
    """A number of Hugging Face's means the class of that name, in every shard the same."""
    hugging_face(tmp_path, ["cat", "dog"], "a")
    hugging_face(tmp_path, ["dog", "cat"], "b")
    with pytest.raises(BadInput, match="number their classes in other ways"):
        read("shards", tmp_path)
    (tmp_path / "data/b-00000-of-00001.parquet").unlink()
    path = tmp_path / "data/a-00000-of-00001.parquet"
    table = pq.read_table(path)
    for number in (-1, 2):
        pq.write_table(table.set_column(1, "label", pa.array([0, number])), path)
        with pytest.raises(BadInput, match=f"row 1 of .* has the label {number}, which its ClassLabel does not name"):
            read("shards", tmp_path)
    for metadata in ("{", "[]", '{"info": null}'):
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), path)
        with pytest.raises(BadInput, match="'huggingface' that describe no columns"):
            read("shards", tmp_path)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert read("shards", tmp_path).labels == ["0", "1"], "control: without metadata the numbers are the names"


def _npz(path: Path, labels: list[object]) -> None:
    np.savez(path, images=np.stack(images(len(labels))), labels=np.array(labels))


def _parquet(path: Path, labels: list[object]) -> None:
    pq.write_table(pa.table({"image": PICTURES[: len(labels)], "label": labels}), path)


@pytest.mark.parametrize("write", [_npz, _parquet])
def test_shards_with_names_and_shards_with_numbers_are_not_one_dataset(tmp_path: Path, write: Callable[[Path, list[object]], None]) -> None:
    """Class 1 of one file is the dog of another, or is not; nobody knows. Controls: all by names, all by numbers."""
    suffix = {_npz: ".npz", _parquet: ".parquet"}[write]
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for names in (["cat", "dog"], [0, 1]):
        write(first, names)
        write(second, names[::-1])
        assert read("shards", tmp_path).labels == [str(name) for name in (*names, *names[::-1])], "control"
    for one, other in ((["cat", "dog"], [0, 1]), ([0, 1], ["cat", "dog"])):
        write(first, one)
        write(second, other)
        ways = ("numbers", "names") if one == ["cat", "dog"] else ("names", "numbers")
        with pytest.raises(BadInput, match=rf"b\{suffix} tells its classes by {ways[0]} and \S*a\{suffix} by {ways[1]}: write the labels of all"):
            read("shards", tmp_path)


def test_every_label_of_a_tar_is_a_name(tmp_path: Path) -> None:
    """Its labels are text, so a class that is called 1 may have a file of its own."""
    for name, label in (("a", "dog"), ("b", "1")):
        tar(tmp_path / f"{name}.tar", {"0.png": PICTURES[0], "0.cls": label.encode(), "1.png": PICTURES[1], "1.cls": label.encode()})
    assert read("shards", tmp_path).labels == ["dog", "dog", "1", "1"]


def test_a_later_shard_without_labels_is_told_by_that(tmp_path: Path) -> None:
    _parquet(tmp_path / "a.parquet", [0, 1])
    pq.write_table(pa.table({"image": PICTURES[:2]}), tmp_path / "b.parquet")
    with pytest.raises(BadInput, match=r"b\.parquet has no column 'label'"):
        read("shards", tmp_path)


def test_class_labels_go_with_names_and_not_with_numbers(tmp_path: Path) -> None:
    """Hugging Face's numbers have names."""
    hugging_face(tmp_path, LABELS)
    _parquet(tmp_path / "data/zzz.parquet", ["emu", "dog"])
    assert read("shards", tmp_path).labels == [*LABELS, "emu", "dog"]
    _parquet(tmp_path / "data/zzz.parquet", [0, 1])
    with pytest.raises(BadInput, match=r"zzz\.parquet tells its classes by numbers and .*train-00000-of-00001\.parquet by names"):
        read("shards", tmp_path)


@pytest.mark.parametrize("written_as", WRITERS)
@given(data=st.data())
def test_damage_anywhere_in_any_file_is_a_sentence_or_a_dataset(
    tmp_path_factory: pytest.TempPathFactory, written_as: str, data: st.DataObject
) -> None:
    """A file is cut, or some of it, or all, is other bytes. The control is that the formats are read as they were written, above."""
    folder = tmp_path_factory.mktemp("damaged")
    kind, write = WRITERS[written_as]
    write(folder, LABELS)
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)) | st.just(len(whole)) | st.just(start))
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:])
    with contextlib.suppress(BadInput):
        raw = read(kind, folder)
        assert len(raw.labels) == len(raw.images)
    shutil.rmtree(folder)


def test_shards_and_groups_without_rows_are_nothing(tmp_path: Path) -> None:
    """What Spark and pandas write for an empty part is not an image of no size, whatever types its columns have."""
    parquet_names(tmp_path, LABELS)
    pq.write_table(pa.table({"image": pa.array([], pa.float64()), "label": pa.array([], pa.null())}), tmp_path / "b.parquet")
    with pq.ParquetWriter(tmp_path / "c.parquet", (table := pq.read_table(tmp_path / "a.parquet")).schema) as writer:
        for part in (table[:0], table, table[:0]):
            writer.write_table(part)
    assert pq.read_metadata(tmp_path / "c.parquet").num_row_groups == 3, "control: there are groups without rows"
    assert read("shards", tmp_path).labels == LABELS * 2


def test_an_empty_npz_shard_is_nothing(tmp_path: Path) -> None:
    """The same for arrays."""
    npz(tmp_path, LABELS)
    np.savez(tmp_path / "b.npz", images=np.array([]), labels=np.array([]))
    assert read("shards", tmp_path).labels == LABELS
    np.savez(tmp_path / "c.npz", images=np.array(1), labels=np.array(1))
    with pytest.raises(BadInput, match=r"c\.npz has images of int64 \[\]"):
        read("shards", tmp_path)


def test_arrays_in_fortrans_order_are_the_same_images(tmp_path: Path) -> None:
    """How an array lies in memory does not turn its images."""
    stacked = np.stack(images(5))
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(stacked), labels=np.array([1, 2, 3, 4, 5], dtype=">i2"))
    raw = read("shards", tmp_path)
    assert np.array_equal(raw.images[:][..., 0], stacked)
    assert raw.labels == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("image", [{"bytes": None, "path": "0.png"}, {"bytes": PICTURES[0], "path": None}], "row 0 of .* no bytes of an image"),
        ("image", [{"path": "0.png"}, {"path": "1.png"}], "column 'image' of .* struct"),
        ("image", [[1, 2], [3, 4]], "column 'image' of .* list"),
        ("label", [0.5, 1.0], "column 'label' of .* double"),
        ("label", [True, False], "column 'label' of .* bool"),
    ],
)
def test_columns_that_hold_something_else_are_refused(tmp_path: Path, column: str, values: list[object], words: str) -> None:
    """A picture that lies elsewhere, and a label that is no name, are not guessed."""
    columns = {"image": PICTURES[:2], "label": ["cat", "dog"], column: values}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=words):
        read("shards", tmp_path)


def test_labels_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    """Text that no record could hold is not found later."""
    labels = pa.array([b"cat", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": PICTURES[:2], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"is not a whole parquet file \(UnicodeDecodeError\)"):
        read("shards", tmp_path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "zstd"}, {"data_page_size": 512}, {"write_page_checksum": True}])
def test_parquet_of_any_writer_is_read(tmp_path: Path, version: str, options: dict[str, object]) -> None:
    """The pages that are asked for their size are those that hold the rows."""
    table = pa.table({"image": PICTURES * 40, "label": pa.array(LABELS * 40), "other": [["x"] * 3] * 200})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=90, data_page_version=version, **options)
    assert read("shards", tmp_path).labels == LABELS * 40


BROKEN_TARS: dict[str, tuple[dict[str, bytes], str]] = {
    "no label": ({"1.png": PICTURES[1]}, r"sample 1 in .* has no label \(\.cls or \.txt\)"),
    "no picture": ({"1.cls": b"dog"}, "sample 1 in .* has no picture"),
    "two pictures": ({"1.png": PICTURES[1], "1.depth.png": PICTURES[2], "1.cls": b"dog"}, r"two pictures, 1\.png and 1\.depth\.png"),
    "label elsewhere": ({"1.png": PICTURES[1], "2.png": PICTURES[2], "2.cls": b"dog", "1.cls": b"dog"}, "sample 1 in .* has no label"),
    "no text": ({"1.png": PICTURES[1], "1.cls": b"\xff"}, "not text in UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN_TARS)
def test_a_sample_that_is_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    """No picture gets another sample's label, and none is left out."""
    whole = {"x/0.png": PICTURES[0], "x/0.cls": b"cat\n", "x/0.json": b"{}", "._x": b"", "y.png": PICTURES[1], "y.txt": b"dog\r\n"}
    tar(tmp_path / "a.tar", whole)
    assert read("shards", tmp_path).labels == ["cat", "dog"]
    files, words = BROKEN_TARS[name]
    tar(tmp_path / "a.tar", whole | files)
    with pytest.raises(BadInput, match=words):
        read("shards", tmp_path)


def test_a_tar_that_was_cut_joined_or_compressed_is_not_a_shorter_one(tmp_path: Path) -> None:
    """tarfile takes a damaged header for the end of the file, and does not see what is behind the end."""
    import gzip

    path = tmp_path / "a.tar"
    tar(path, {f"{n}.{end}": data for n in range(4) for end, data in (("png", PICTURES[n]), ("cls", b"cat"))})
    whole = path.read_bytes()
    assert len(read("shards", tmp_path).labels) == 4
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("3.cls")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"dog"))
    with pytest.raises(BadInput, match=r"sample 3 in .* has two labels, both \.cls"):
        read("shards", tmp_path)
    middle = whole.index(b"2.png")
    damaged = whole[:middle] + b"x" + whole[middle + 1 :]
    for data in (whole[:middle], whole[: middle + 700], damaged, whole + whole, gzip.compress(whole), b""):
        path.write_bytes(data)
        with pytest.raises(BadInput, match="is not a whole tar file without compression"):
            read("shards", tmp_path)
