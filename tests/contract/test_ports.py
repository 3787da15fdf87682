"""One suite for every adapter of a port, so that the ones in memory cannot lie."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.runtime.blobs import FolderBlobs
from services.runtime.errors import Unavailable
from services.runtime.memory import MemoryBlobs


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path)


async def test_a_blob_is_written_once_and_read_back(blobs: Any) -> None:
    uri = await blobs.put("samples/p/ab/abc", b"content")
    assert await blobs.put("samples/p/ab/abc", b"content") == uri
    assert await blobs.get(uri) == b"content"


async def test_a_blob_that_is_gone_is_a_key_error(blobs: Any) -> None:
    uri = await blobs.put("x/y", b"content")
    await blobs.delete(uri)
    await blobs.delete(uri)
    with pytest.raises(KeyError):
        await blobs.get(uri)


async def test_a_folder_is_not_left(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "store")
    for name in ("../x", "a/../../x", "/etc/passwd", "."):
        with pytest.raises(ValueError, match="leaves the store"):
            await blobs.put(name, b"")


async def test_many_blobs_at_once_are_each_their_own(blobs: Any) -> None:
    contents = {f"many/{number % 3}/{number}": str(number).encode() * (number % 7) for number in range(60)}
    uris = await asyncio.gather(*(blobs.put(name, content) for name, content in contents.items()))
    assert await asyncio.gather(*map(blobs.get, uris)) == list(contents.values())


async def test_many_blobs_by_one_call_are_in_order_and_what_is_not_there_is_none(blobs: Any) -> None:
    contents = {f"many/{number % 3}/{number}": str(number).encode() for number in range(20)}
    uris = await blobs.put_all(list(contents.items()))
    assert uris == [f"blob:{name}" for name in contents]
    asked = [uris[3], "blob:many/none", uris[0], "blob:../../etc/passwd", uris[3]]
    assert await blobs.get_all(asked) == [b"3", None, b"0", None, b"3"]
    assert (await blobs.put_all([]), await blobs.get_all([])) == ([], [])


async def test_a_disk_that_fails_one_of_many_fails_the_call(tmp_path: Path) -> None:
    """Half of a bulk is no bulk: whoever asked tries all of it again."""
    blobs = FolderBlobs(tmp_path)
    await blobs.put("a/file", b"")
    with pytest.raises(Unavailable):
        await blobs.put_all([("b/one", b"1"), ("a/file/below", b"2")])


async def test_one_blob_that_fails_does_not_fail_the_others(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("a", b"a file, not a folder")
    names = ["x/1", "a/below", *(f"x/{number}" for number in range(2, 20))]
    answers = await asyncio.gather(*(blobs.put(name, b"content") for name in names), return_exceptions=True)
    assert [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Unavailable)] == ["a/below"]
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == sorted(str(n) for n in range(1, 20))
    read = await asyncio.gather(blobs.get("blob:x/1"), blobs.get("blob:x/none"), return_exceptions=True)
    assert read[0] == b"content"
    assert isinstance(read[1], KeyError)


async def test_a_link_does_not_lead_out_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"not for everybody")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "way-out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves the store"):
        await FolderBlobs(tmp_path / "store").get("blob:way-out/secret")
