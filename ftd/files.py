"""Every write that must survive a crash goes through here.

Three kinds of files make the protocol between daemon and worker:

* *sealed*: written aside, fsynced, renamed, and the folder fsynced; if it exists it is complete;
* *streams*: appended; a line counts once it has its newline;
* *locks*: a ``flock`` that the kernel releases when the last holder dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ftd import faults
from ftd.regular import NO_FILE, open_regular, read_bytes

MANIFEST = "manifest.json"
MAX_JSON_BYTES = 64 << 20
MAX_LINE_BYTES = 16 << 20


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename is not, until its folder is synced)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make `folder` and what is missing above it, durably: nothing sealed inside is lost later."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode, exist_ok=True)
    # Also when it was there: whoever made it may have been killed before this.  A parent that we
    # may not read is not ours to sync.
    with suppress(PermissionError):
        fsync_folder(folder.parent)


def all_at_once(waits: Sequence[Callable[[], object]]) -> None:
    """Call functions that wait for the disk, at the same time: one flush of it serves them all.

    Returns when all have; raises what the first of them raised.
    """
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that most commands do not need

    with ThreadPoolExecutor(len(waits)) as threads:
        for each in [threads.submit(wait) for wait in waits]:
            each.result()


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(
    path: Path, data: bytes, *, lasting: bool = True, along: Sequence[Callable[[], object]] = ()
) -> None:
    """Write `data` so that `path` is either absent, its old self, or exactly `data`.

    What `along` makes durable is so before the name is there.  Not `lasting`: the disk is not
    waited for, and after a power cut there may be anything.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if along:
                all_at_once([partial(os.fsync, stream.fileno()), *along])
            elif lasting:
                os.fsync(stream.fileno())
        faults.point(f"seal.written:{path.name}")
        os.replace(aside, path)
        faults.point(f"seal.renamed:{path.name}")
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if lasting:
        fsync_folder(path.parent)


def seal_json(
    path: Path,
    value: Mapping[str, Any],
    *,
    lasting: bool = True,
    along: Sequence[Callable[[], object]] = (),
) -> None:
    """Seal `value` as JSON text, as :func:`seal` does."""
    text = json.dumps(value, sort_keys=True, indent=1)
    seal(path, text.encode(), lasting=lasting, along=along)


def read_json(path: Path) -> dict[str, Any] | None:
    """The sealed JSON object at `path`; None when it is absent or not a JSON object."""
    try:
        value = json.loads(read_bytes(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise
    return value if isinstance(value, dict) else None


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    import hashlib  # OpenSSL costs every command 10 ms otherwise

    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_folder(
    folder: Path, writers: Mapping[str, Callable[[Path], None]], manifest: Mapping[str, Any]
) -> None:
    """Write a folder of files as one unit: payload first, manifest last, then one rename.

    `writers` maps a file name to a function that writes the file at the path it is given.  The
    manifest gains ``files``: name -> {bytes, sha256}.  `folder` must not exist yet.
    """
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        files = {}
        for name, write in writers.items():
            path = aside / name
            write(path)
            fsync_file(path)
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            faults.point("folder.payload")
        seal_json(aside / MANIFEST, {**manifest, "files": files})
        faults.point("folder.manifest")
        os.rename(aside, folder)
        faults.point("folder.renamed")
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_folder(folder.parent)


def sealed_folder(folder: Path) -> dict[str, Any] | None:
    """The manifest of a sealed folder if every file has the recorded size and digest, else None."""
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            return None
        for name, recorded in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != recorded["bytes"] or sha256_of(path) != recorded["sha256"]:
                return None
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return None
    return manifest


def set_aside(path: Path, why: str) -> Path:
    """Rename `path` so that nobody takes it for what it was; nothing is dropped.  Its new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f".{why}-{path.name}-{stamp}-{os.getpid()}")
    os.rename(path, aside)
    return aside


class Stream:
    """An append-only file of JSON lines; `offset` is the number of bytes written so far.

    Lines are as durable as what leads to them: the first :meth:`sync` also makes that durable, the
    stream's folder and what `place` names.
    After a write or an fsync that failed nothing more is taken: half a line may be there, and the
    kernel may have dropped what it could not write, so that a later fsync would succeed falsely.
    """

    def __init__(self, path: Path, place: Sequence[Path] = ()) -> None:
        self._path = path
        self._place = [path.parent, *place]
        self._failure: tuple[int, str] | None = None
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.offset = os.fstat(self._descriptor).st_size

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one line; it counts as soon as its newline is there."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if len(data) > MAX_LINE_BYTES:
            raise ValueError(f"an event of {len(data):,} bytes; {MAX_LINE_BYTES:,} is the limit")
        with self._intact():
            if faults.springs("event.torn"):
                os.write(self._descriptor, data[: len(data) // 2])
                faults.die()
            while data:
                written = os.write(self._descriptor, data)
                self.offset += written
                data = data[written:]

    def sync(self) -> int:
        """Make everything appended so far durable; returns the offset it reaches."""
        with self._intact():
            place = [partial(fsync_file, path) for path in self._place]
            all_at_once([partial(os.fsync, self._descriptor), *place])
            self._place = []
        return self.offset

    @contextmanager
    def _intact(self) -> Iterator[None]:
        """A block that works on the file, unless an earlier one failed.  Raises OSError."""
        if self._failure is None:
            try:
                yield
            except OSError as error:
                self._failure = error.errno or 0, error.strerror or str(error)
        if self._failure is not None:
            raise OSError(*self._failure, str(self._path))

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        os.close(self._descriptor)


def complete_lines(path: Path, offset: int, limit: int = 1 << 20) -> tuple[list[bytes], int]:
    """Whole lines of a stream from byte `offset` on, and the offset behind them.

    Reads about `limit` bytes at a time, more only when a single line is longer than that.  What
    has no newline for MAX_LINE_BYTES is no line of ours: a line is made of it, to get past it.
    """
    try:
        with open_regular(path) as stream:
            stream.seek(offset)
            data = stream.read(limit)
            while data and b"\n" not in data and len(data) < MAX_LINE_BYTES:
                more = stream.read(limit)
                if not more:
                    break
                data += more
    except OSError as error:
        if error.errno in NO_FILE:
            return [], offset
        raise
    end = data.rfind(b"\n") + 1
    if not end and len(data) >= MAX_LINE_BYTES:
        end = len(data)
    return data[:end].splitlines(), offset + end


def try_lock(path: Path, mode: int = 0o600) -> int | None:
    """Take an exclusive ``flock`` on `path` without waiting; the open descriptor, or None if held.

    The descriptor is not inherited by child processes unless it is passed on by name.
    """
    descriptor = _open_lock(path, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_lock(path: Path, mode: int) -> int:
    """Open a lock file, which may be another user's: reading is enough to lock it.

    In a folder that everybody can write to, Linux refuses O_CREAT on other people's files
    (fs.protected_regular), so only a missing one is created.
    """
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            continue
        os.fchmod(descriptor, mode)  # whatever the umask
        return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive ``flock`` on `path`, waiting for it as long as it takes."""
    descriptor = _open_lock(path, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
