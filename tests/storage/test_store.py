"""The store keeps one contract on local disk and on S3."""

from __future__ import annotations

import functools
import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import s3fs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raycl.errors import InputError
from raycl.storage.store import Store, absolute
from tests.storage.builders import together

THREADS = 8
KILLED_WHILE_WRITING = """
import os, signal, sys
from raycl.storage.store import Store
with Store(sys.argv[1]).open_output("folder/data.parquet") as stream:
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def fail_while_writing(store: Store, path: str, error: BaseException) -> None:
    with store.open_output(path) as stream:
        stream.write(b"half")
        raise error


def test_what_is_written_is_read_back(store: Store) -> None:
    for content in (b"", b"one", bytes(range(256)) * 5_000):
        store.write("folder/file.bin", content)
        assert store.read("folder/file.bin") == content
        assert store.read_with("folder/file.bin", lambda file: (file.size(), file.read(10) + file.read())) == (
            len(content),
            content,
        )
        assert store.sha256("folder/file.bin") == hashlib.sha256(content).hexdigest()


def test_a_name_that_ends_as_those_of_compressed_files_do_is_read_as_it_is(store: Store) -> None:
    store.write("file.gz", b"not compressed")
    assert store.read("file.gz") == b"not compressed"
    assert store.sha256("file.gz") == hashlib.sha256(b"not compressed").hexdigest()


def test_reading_or_hashing_what_is_not_there_says_so(store: Store) -> None:
    store.write("folder/file", b"1")
    for absent in ("file", "folder/fil", "folder/file2"):
        with pytest.raises(FileNotFoundError):
            store.read(absent)
        with pytest.raises(FileNotFoundError):
            store.read_with(absent, pytest.fail)
        with pytest.raises(FileNotFoundError):
            store.sha256(absent)


def test_an_empty_store_has_nothing_in_it(store: Store) -> None:
    assert store.names("") == []
    assert store.names("folder") == []
    assert store.files() == []
    assert store.files("folder") == []
    assert not store.exists("folder")


def test_files_and_folders_are_listed_sorted_and_relative_to_the_root(store: Store) -> None:
    for path in ("b/2/x", "b/10/x", "a.txt", "b.txt", "b/10/a", "bb/x"):
        store.write(path, b"1")
    assert store.names("") == ["a.txt", "b", "b.txt", "bb"]
    assert store.names("b") == ["10", "2"]
    assert store.files() == ["a.txt", "b.txt", "b/10/a", "b/10/x", "b/2/x", "bb/x"]
    assert store.files("b") == ["b/10/a", "b/10/x", "b/2/x"]
    for path, there in (("b", True), ("b/10", True), ("b/10/x", True), ("b/1", False), ("b/10/x/y", False)):
        assert store.exists(path) is there, path


def test_a_store_under_another_sees_only_its_own_part(store: Store) -> None:
    inner = store.under("stage/one")
    inner.write("file", b"inner")
    store.write("stage/other", b"outer")
    assert inner.files() == ["file"]
    assert store.read("stage/one/file") == b"inner"
    assert inner.uri == f"{store.uri}/stage/one"
    assert Store(store.uri) == store


def test_deleting_a_folder_takes_all_of_it_and_nothing_beside_it(store: Store) -> None:
    for path in ("a/1", "a/b/2", "ab/3", "c"):
        store.write(path, b"1")
    store.delete_folder("a")
    store.delete_folder("a")
    store.delete_folder("never/was")
    assert store.files() == ["ab/3", "c"]
    assert not store.exists("a")


def test_deleting_a_file_leaves_the_others_and_asks_for_one_that_is_there(store: Store) -> None:
    for path in ("a/1", "a/2", "b"):
        store.write(path, b"1")
    store.delete("a/1")
    assert store.files() == ["a/2", "b"]
    with pytest.raises(FileNotFoundError):
        store.delete("a/1")


def test_sizes_are_those_of_the_files(store: Store) -> None:
    for path, size in (("a/2", 3), ("a/1", 0), ("ab", 7)):
        store.write(path, b"1" * size)
    assert list(store.sizes().items()) == [("a/1", 0), ("a/2", 3), ("ab", 7)]
    assert store.sizes("a") == {"a/1": 0, "a/2": 3}
    assert store.sizes("never") == {}


def test_an_output_is_visible_when_its_context_ends_and_not_before(store: Store) -> None:
    with store.open_output("folder/file") as stream:
        stream.write(b"first ")
        stream.write(b"second")
        assert not store.exists("folder/file")
    assert store.read("folder/file") == b"first second"
    assert store.files() == ["folder/file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_output_that_fails_half_way_leaves_nothing(store: Store, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail_while_writing(store, "folder/file", error())
    assert store.files() == []


def test_an_output_that_fails_half_way_leaves_the_older_file(store: Store) -> None:
    store.write("folder/file", b"older")
    with pytest.raises(ValueError, match="stop"):
        fail_while_writing(store, "folder/file", ValueError("stop"))
    assert store.files() == ["folder/file"]
    assert store.read("folder/file") == b"older"


def test_an_output_that_is_forgotten_leaves_nothing_on_s3(s3_store: Store) -> None:
    output = s3_store.open_output("file")
    output.__enter__().write(b"half")
    del output
    assert s3_store.files() == []


@pytest.mark.parametrize("fails", [False, True])
def test_an_upload_of_several_parts_is_completed_or_aborted_whole(
    s3_store: Store, s3_client: Any, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    part = 5 * 2**20  # the least that S3 takes
    monkeypatch.setattr(s3fs.S3FileSystem, "default_block_size", part)
    bucket = s3_store.uri.split("/")[2]

    def write() -> None:
        with s3_store.open_output("file") as stream:
            stream.write(b"a" * part)
            stream.write(b"b" * part)
            assert len(s3_client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
            stream.write(b"c")
            if fails:
                raise ValueError("stop")

    if fails:
        with pytest.raises(ValueError, match="stop"):
            write()
        assert s3_store.files() == []
    else:
        write()
        assert s3_store.read("file") == b"a" * part + b"b" * part + b"c"
    assert "Uploads" not in s3_client.list_multipart_uploads(Bucket=bucket)


def test_a_created_file_is_not_created_again(store: Store) -> None:
    assert store.create("folder/file", b"first")
    assert not store.create("folder/file", b"second")
    assert store.read("folder/file") == b"first"
    assert store.files() == ["folder/file"]


def test_a_written_file_cannot_be_created(store: Store) -> None:
    store.write("file", b"written")
    assert not store.create("file", b"created")
    assert store.read("file") == b"written"


def test_of_many_that_create_one_file_exactly_one_wins(store: Store) -> None:
    for race in range(5):
        won = together([functools.partial(store.create, f"race/{race}", b"%d" % number) for number in range(THREADS)])
        assert sorted(won) == [False] * (THREADS - 1) + [True]
        assert store.read(f"race/{race}") == b"%d" % won.index(True)
    assert len(store.files()) == 5


def test_what_a_killed_process_had_not_finished_is_never_seen_and_can_be_removed(store: Store) -> None:
    kept = [".hidden", "folder/data", "folder/report.partial", "work/.file.0123.partial"]
    for path in kept:
        store.write(path, b"1")
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, store.uri], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not store.exists("folder/data.parquet")
    assert len(store.files()) == 4 + store.is_local
    store.delete_partial(keep="work")
    assert store.files() == kept


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_local_store_may_be_named_as_a_path_or_as_a_file_uri(tmp_path: Path, scheme: str) -> None:
    store = Store(f"{scheme}{tmp_path}")
    store.write("a/b", b"1")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"
    assert store.is_local
    assert store.full("a/b") == str(tmp_path / "a" / "b")


def test_a_relative_uri_becomes_the_same_place_for_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("workspace/x") == str(tmp_path / "workspace" / "x")
    assert absolute("s3://bucket/x") == "s3://bucket/x"


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError, match=r"URI gs://bucket/x: the scheme is unknown; use a local path or s3://"):
        Store("gs://bucket/x").names("")


def test_a_writable_store_is_left_as_it_was(store: Store) -> None:
    store.require_writable()
    assert store.files() == []
    assert store.under("not/yet/there").files() == []


def test_a_path_below_a_regular_file_is_refused_as_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    uri = f"{tmp_path}/file/workspace"
    with pytest.raises(InputError, match=r"^workspace=.*/file/workspace cannot be written \(.*Not a directory"):
        Store(uri).require_writable()


def test_a_read_only_path_is_refused_as_a_workspace() -> None:
    # Nobody may write there, root included.
    with pytest.raises(InputError, match=r"^OUTPUT=/proc/raycl cannot be written .* choose another, or grant"):
        Store("/proc/raycl").require_writable("OUTPUT")


def test_a_bucket_that_is_not_there_is_refused_as_a_workspace(s3_environment: None) -> None:
    with pytest.raises(InputError, match=r"^workspace=s3://no-such-bucket/x cannot be written \(.*[bB]ucket"):
        Store("s3://no-such-bucket/x").require_writable()


def test_s3_without_credentials_is_refused_as_a_workspace(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"^workspace=s3://.* cannot be written \(.*credentials"):
        s3_store.require_writable()


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["write", "create", "delete_folder"]), st.integers(0, 5)), max_size=12))
def test_any_sequence_of_changes_leaves_what_a_dictionary_would(tmp_path: Path, changes: list[tuple[str, int]]) -> None:
    paths = ("a", "b/1", "b/2", "b/c/3", "bc/4", "d/e/f/5")
    store, truth = Store(str(tmp_path / "root")), dict[str, bytes]()
    store.delete_folder("")
    for step, (change, number) in enumerate(changes):
        path, content = paths[number], f"{step}".encode()
        if change == "write":
            store.write(path, content)
            truth[path] = content
        elif change == "create":
            assert store.create(path, content) is (path not in truth)
            truth.setdefault(path, content)
        elif "/" in path:
            folder = path.rpartition("/")[0]
            store.delete_folder(folder)
            truth = {name: held for name, held in truth.items() if not name.startswith(f"{folder}/")}
    assert {path: store.read(path) for path in store.files()} == truth
    assert [store.exists(path) for path in paths] == [path in truth for path in paths]
