"""One file that holds others: a tar, compressed as its suffix says, whose last member has the checksums of the others.

It is written under another name and renamed once it is on the disk, so that where an archive lies it is whole. What is
read is checked through before any of it is used; what is damaged, cut short or not ours is an :class:`InputError`.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import google_crc32c
import pyarrow as pa

from eventmesh.errors import EnvironmentUnavailable, InputError
from eventmesh.log.copying import CHUNK, CopiedFile

#: How an archive is compressed, by what its name ends in.
SUFFIXES: Mapping[str, str | None] = {".tar": None, ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
GZIP_LEVEL = 1
MANIFEST = "backup.json"
MANIFEST_BYTES_MAX = 256 << 20
CHECKSUM = "crc32c"
_DAMAGE = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, pa.ArrowException)
#: What a file system without hard links answers.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
#: Takes a member: its name, its size, its bytes.
Take = Callable[[str, int, Iterator[bytes]], None]
#: Hears of every piece that was moved, with its bytes.
Moved = Callable[[int], object]


def unheard(size: int) -> None:
    """Nobody wants to know."""


def compression(path: Path) -> str | None:
    """How the archive of that name is compressed; :class:`InputError` for a name that does not say so."""
    for suffix, how in SUFFIXES.items():
        if path.name.endswith(suffix) and path.name != suffix:
            return how
    raise InputError(f"{path}: a backup's name ends in {', '.join(SUFFIXES)}: name one, such as shop.tar")


def must_be_new(path: Path) -> None:
    """Nothing lies at ``path``, and its folder is there to take a file; :class:`InputError` otherwise."""
    compression(path)
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already, and no backup is ever overwritten. Name another file, or remove it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}. Make it, or name a file in another one")


def write(
    path: Path, files: Iterable[CopiedFile], description: Mapping[str, Any], moved: Moved = unheard
) -> dict[str, Any]:
    """Write an archive of ``files``: its manifest, which is ``description`` with what was written of each file."""
    must_be_new(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with _writing(unfinished, compression(path)) as sink:
            manifest = _write(sink, files, description, moved)
        sync(unfinished)
        _into_place(unfinished, path)
        sync(path.parent)
    except FileExistsError:
        must_be_new(path)
        raise
    except OSError as error:
        problem = f"{path}: the backup cannot be written ({error.strerror or error})"
        raise EnvironmentUnavailable(f"{problem}. Make room, or name a file elsewhere") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return manifest


@contextmanager
def _writing(path: Path, how: str | None) -> Iterator[Any]:
    if how == "gzip":  # Arrow's has one level alone, the slowest: a tenth of the speed for 4 % of the size
        with path.open("wb") as file, gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
            yield packed
    else:
        with pa.output_stream(str(path), compression=how) as sink:
            yield sink


def _into_place(unfinished: Path, path: Path) -> None:
    """By a link, since a rename would overwrite what came there meanwhile; where there are no links, all the same."""
    try:
        os.link(unfinished, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        must_be_new(path)
        unfinished.rename(path)


def _write(sink: Any, files: Iterable[CopiedFile], description: Mapping[str, Any], moved: Moved) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            reading = _Reading(file.chunks, moved)
            archive.addfile(_member(file.path, file.size), cast(Any, reading))
            listed.append({"path": file.path, "bytes": file.size, CHECKSUM: reading.checksum})
        manifest = {**description, "files": listed}
        data = json.dumps({CHECKSUM: _checksum(manifest), **manifest}, indent=1).encode()
        archive.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))
    return manifest


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, 0o644
    return member


class _Reading:
    """Chunks as a file to read from, which knows the checksum of what was read."""

    def __init__(self, chunks: Iterator[bytes], moved: Moved) -> None:
        self._chunks, self._left, self._moved = chunks, b"", moved
        self.checksum = 0

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, but for the last ones."""
        parts, missing = [self._left], size - len(self._left)
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            missing -= len(chunk)
        data = b"".join(parts)
        data, self._left = data[:size], data[size:]
        self.checksum = google_crc32c.extend(self.checksum, data)
        self._moved(len(data))
        return data


def _checksum(manifest: Mapping[str, Any]) -> int:
    value: int = google_crc32c.value(json.dumps(manifest, sort_keys=True).encode())
    return value


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading -------------------------------------------------------------------------------------


def verified(path: Path, schema: str, allowed: re.Pattern[str], moved: Moved = unheard) -> dict[str, Any]:
    """The manifest of an archive that is whole: every member is listed, none is missing, every checksum is right.

    ``schema`` is what the manifest must say of itself; every path in it must match ``allowed``. Nothing is written.
    """
    found: list[dict[str, Any]] = []
    manifests: list[bytes] = []

    def take(name: str, size: int, chunks: Iterator[bytes]) -> None:
        if name == MANIFEST:
            if size > MANIFEST_BYTES_MAX:
                raise _damaged(path, f"{MANIFEST} has {size} bytes")
            manifests.append(b"".join(chunks))
        else:
            found.append({"path": name, "bytes": size, CHECKSUM: _of(chunks, moved)})

    _each(path, take)
    if len(manifests) != 1:
        detail = f"{MANIFEST}, its last member, is not there" if not manifests else f"{MANIFEST} is there twice"
        raise _damaged(path, detail)
    manifest = _parsed(path, manifests[0], schema)
    _same(path, manifest["files"], found, allowed)
    return manifest


def extract(path: Path, folder: Path, manifest: Mapping[str, Any], moved: Moved = unheard) -> None:
    """Write the files of an archive whose ``manifest`` was :func:`verified` below ``folder``, and sync them."""
    expected = {file["path"]: file for file in manifest["files"]}

    def take(name: str, size: int, chunks: Iterator[bytes]) -> None:
        if name == MANIFEST:
            return
        if name not in expected:  # it is not the archive that was looked through
            raise _damaged(path, f"{name} has come to it since it was checked")
        target, checksum = folder / name, 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for chunk in chunks:
                checksum = google_crc32c.extend(checksum, chunk)
                file.write(chunk)
                moved(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if checksum != expected.pop(name)[CHECKSUM]:
            raise _damaged(path, f"{name} has changed since it was checked")

    _each(path, take)
    if expected:
        raise _damaged(path, f"{min(expected)} has gone since it was checked")


def _each(path: Path, take: Take) -> None:
    """Hand every member on, in order; only regular files are any of ours."""
    with _reading(path) as stream:
        with tarfile.open(fileobj=cast(Any, stream), mode="r|") as archive:
            for member in archive:
                if not member.isreg():
                    raise _damaged(path, f"{member.name!r} is no regular file")
                content = cast(Any, archive.extractfile(member))
                take(member.name, member.size, iter(partial(content.read, CHUNK), b""))
        while stream.read(CHUNK):
            pass
        if stream.length % tarfile.RECORDSIZE:
            raise _damaged(path, "it ends before its last block does")


class _Stream:
    """A file to read from that knows how much was read."""

    def __init__(self, file: Any) -> None:
        self._file, self.length = file, 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        data: bytes = self._file.read(size)
        self.length += len(data)
        return data


@contextmanager
def _reading(path: Path) -> Iterator[_Stream]:
    how = compression(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Name a backup that `eventmesh backup` wrote")
    try:
        with pa.input_stream(str(path), compression=how) as stream:
            yield _Stream(stream)
    except InputError:
        raise
    except (*_DAMAGE, OSError) as error:
        raise _damaged(path, type(error).__name__) from error


def _parsed(path: Path, data: bytes, schema: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        checksum, said = manifest.pop(CHECKSUM, None), manifest.get("schema")
    except (ValueError, AttributeError) as error:
        raise _damaged(path, f"{MANIFEST} is no JSON object") from error
    if said != schema and isinstance(said, str) and said.partition("/")[0] == schema.partition("/")[0]:
        problem = f"{path}: a backup of format {said}, this program reads {schema}"
        raise InputError(f"{problem}. Restore it with the program that wrote it")
    if said != schema or checksum != _checksum(manifest):
        raise _damaged(path, f"{MANIFEST} does not match its checksum")
    return dict(manifest)


def _same(path: Path, listed: list[Any], found: list[dict[str, Any]], allowed: re.Pattern[str]) -> None:
    for file in found:
        if not allowed.fullmatch(file["path"]):
            raise _damaged(path, f"{file['path']!r} is no file of a backup")
    if len({file["path"] for file in found}) != len(found):
        raise _damaged(path, "a file is there twice")
    for expected, file in zip(listed, found, strict=False):
        if expected != file:
            raise _damaged(path, f"{file['path']} is not what was written")
    if len(listed) != len(found):
        raise _damaged(path, f"{len(found)} files are there, {len(listed)} were written")


def _of(chunks: Iterator[bytes], moved: Moved) -> int:
    checksum = 0
    for chunk in chunks:
        checksum = google_crc32c.extend(checksum, chunk)
        moved(len(chunk))
    return checksum


def _damaged(path: Path, detail: str) -> InputError:
    return InputError(f"{path}: no whole backup ({detail}). Nothing was restored; use another copy of it")
