"""Archives from outside: what is taken, what is left out, what is refused in one sentence."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from core.errors import InputError
from demo.unpack import BatchLimits, Picture, list_pictures, unpack

LIMITS = BatchLimits(pictures=3, picture_bytes=100, total_bytes=250)


Files = list[tuple[Path, str]]
Pack = Callable[[Mapping[str | zipfile.ZipInfo, bytes]], Files]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    def write(members: Mapping[str | zipfile.ZipInfo, bytes]) -> Files:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return [(tmp_path / "a.zip", "a.zip")]

    return write


def taken(files: Files) -> list[tuple[str, bytes | str]]:
    found: list[Picture] = list(unpack(files, LIMITS))
    return [(p.name, str(p.data) if isinstance(p.data, InputError) else p.data) for p in found]


def test_pictures_come_out_in_the_order_of_their_names(
    pack: Pack,
) -> None:
    files = pack({"coil/b.png": b"B", "coil/a.JPG": b"A", "notes.txt": b"x"})
    assert list_pictures(files, LIMITS) == (2, ("notes.txt",))
    assert taken(files) == [("a.JPG", b"A"), ("b.png", b"B")]


def test_a_name_that_climbs_is_only_a_name(pack: Pack) -> None:
    files = pack({"../../etc/cron.d/a.png": b"A", "C:\\windows\\b.png": b"B", "/c.png": b"C"})
    assert [name for name, _ in taken(files)] == ["a.png", "c.png", "b.png"]


def test_links_and_shadow_files_are_left_out(pack: Pack) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    files = pack(
        {link: b"/etc/passwd", "__MACOSX/._a.png": b"x", ".hidden.png": b"x", "a.png": b"A"}
    )
    pictures, others = list_pictures(files, LIMITS)
    assert (pictures, others) == (1, ("link.png", "._a.png", ".hidden.png"))
    assert taken(files) == [("a.png", b"A")]


def test_an_archive_in_an_archive_is_left_out(pack: Pack) -> None:
    files = pack({"inner.zip": b"PK", "a.png": b"A"})
    assert list_pictures(files, LIMITS) == (1, ("inner.zip",))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param(
            ["coil 7/inner.zip", "__MACOSX/coil 7/._inner.zip", "notes.txt"],
            "inner.zip is not opened: unpack it first and drop what is in it.",
            id="one, packed on a Mac",
        ),
        pytest.param(
            ["1.zip", "2.ZIP", "3.7z", "4.rar", "5.tar.gz"],
            "1.zip, 2.ZIP, 3.7z and 2 more are not opened: unpack them first and drop what is in "
            "them.",
            id="many",
        ),
    ],
)
def test_where_only_archives_are_in_it_they_are_named(
    pack: Pack, members: list[str], said: str
) -> None:
    with pytest.raises(InputError) as told:
        list_pictures(pack(dict.fromkeys(members, b"PK")), LIMITS)
    assert str(told.value) == f"There is no picture in it; {said}"


def test_an_archive_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "coil.7z").write_bytes(b"7z")
    with pytest.raises(InputError, match=r"coil\.7z is not opened: unpack it first"):
        list_pictures([(tmp_path / "coil.7z", "coil.7z")], LIMITS)


def test_a_picture_that_is_too_large_is_named_and_its_neighbour_taken(
    pack: Pack,
) -> None:
    files = pack({"a.png": b"0" * 101, "b.png": b"B"})
    assert taken(files) == [("a.png", "It has more than 0.0001 MB."), ("b.png", b"B")]


def test_a_bomb_is_refused_by_what_it_says_of_itself(
    pack: Pack,
) -> None:
    files = pack({"a.png": b"0" * 10_000_000})
    assert files[0][0].stat().st_size < 20_000
    with pytest.raises(InputError, match="Unpacked it is 10 MB; at most 0 MB are taken"):
        list_pictures(files, LIMITS)


def test_a_bomb_that_lies_is_read_no_further_than_allowed(tmp_path: Path) -> None:
    """The sizes in the directory are overwritten: it claims one byte a picture."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"0" * 10_000)
    data = bytearray(path.read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (1).to_bytes(4, "little")  # uncompressed size
    path.write_bytes(data)
    files = [(path, "a.zip")]
    assert list_pictures(files, LIMITS) == (1, ())
    [(name, what)] = taken(files)
    assert name == "a.png"
    assert what in ("It is damaged inside its archive.", b"0")  # never 10,000 bytes


def test_too_many_pictures_are_refused(pack: Pack) -> None:
    files = pack({f"{k}.png": b"x" for k in range(4)})
    with pytest.raises(InputError, match="There are 4 pictures in it; at most 3 are taken"):
        list_pictures(files, LIMITS)


def test_an_archive_without_pictures_says_so(pack: Pack) -> None:
    with pytest.raises(InputError, match="There is no picture in it"):
        list_pictures(pack({"a.txt": b"x"}), LIMITS)


def test_what_is_no_archive_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(InputError, match=r"x\.zip is no readable zip archive"):
        list_pictures([(tmp_path / "x.zip", "x.zip")], LIMITS)


def test_an_encrypted_archive_is_refused(pack: Pack) -> None:
    files = pack({"a.png": b"A"})
    data = bytearray(files[0][0].read_bytes())
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 8] |= 1  # the flag of the directory's entry
    files[0][0].write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip is encrypted"):
        list_pictures(files, LIMITS)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_what_can_only_be_unpacked_whole_is_not_unpacked(tmp_path: Path, method: int) -> None:
    """478 bytes of bzip2 are 500 MB of zeros, which zipfile unpacks before it looks at a size."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", b"0" * 90)
    [(_, what)] = taken([(tmp_path / "a.zip", "a.zip")])
    assert str(what).startswith("It is compressed in a way that is not read here")


def test_an_endless_list_of_files_is_refused_before_it_is_read(pack: Pack) -> None:
    # 54 bytes each: 1,277 of them and that of a.png are 69,009 of the 66,000 + 3 · 1,000 allowed.
    for others, is_endless in ((1276, False), (1277, True)):
        files = pack({"a.png": b"A"} | {f"{k:04d}.txt": b"" for k in range(others)})
        if is_endless:
            with pytest.raises(InputError, match=r"a\.zip lists too many files"):
                list_pictures(files, LIMITS)
        else:
            assert list_pictures(files, LIMITS) == (1, tuple(f"{k:04d}.txt" for k in range(others)))


def test_an_archive_with_the_longest_comment_is_read(pack: Pack) -> None:
    files = pack({"a.png": b"A"})
    with zipfile.ZipFile(files[0][0], "a") as archive:
        archive.comment = b"-" * 65_535
    assert list_pictures(files, LIMITS) == (1, ())


def test_a_compression_that_is_not_known_is_said_to_be_that(pack: Pack) -> None:
    files = pack({"a.png": b"A"})
    data = bytearray(files[0][0].read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # in the member and the directory
        start = data.rfind(mark) + at
        data[start : start + 2] = (97).to_bytes(2, "little")  # WavPack
    files[0][0].write_bytes(data)
    [(_, what)] = taken(files)
    assert str(what).startswith("It is compressed in a way that is not read here")


def test_a_zip_of_a_later_format_is_refused(pack: Pack) -> None:
    [(path, name)] = pack({"a.png": b"A"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99  # version needed to extract: 9.9
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip is no readable zip archive"):
        list_pictures([(path, name)], LIMITS)
