import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, cycle, islice, repeat
from urllib.parse import unquote

import pytest
import torch

from shards.errors import DataError
from shards.manifest import read_manifest
from shards.reading import stores
from shards.reading.clip import ClipConfig
from shards.reading.corpus import open_corpus
from shards.reading.order import ClipOrder
from shards.reading.stores import open_store
from shards.reading.stream import ClipDataset, StreamConfig, read_batches

CLIP = ClipConfig(size=32, fit="crop", flip=True)


class Handler(BaseHTTPRequestHandler):
    """Serves a folder; each request gets the next of the server's troubles."""

    def do_GET(self):
        server, requested_range = self.server, self.headers["Range"]
        name = unquote(self.path).removeprefix("/")
        server.requests.append((name, requested_range))
        trouble = next(server.troubles)
        if trouble == "drop":
            return
        if isinstance(trouble, int) or not (server.folder / name).exists():
            self.send_error(trouble or 404)
            return
        content = (server.folder / name).read_bytes()
        first, stop, headers = 0, len(content), {}
        if server.ranges and requested_range:
            begin, end = re.fullmatch(r"bytes=(\d+)-(\d*)", requested_range).groups()
            first, stop = int(begin), int(end) + 1 if end else len(content)
            headers = {"Content-Range": f"bytes {first}-{stop - 1}/{len(content)}"}
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
        if trouble in ("early", "late"):
            first += {"early": -100, "late": 100}[trouble]
            headers = {"Content-Range": f"bytes {first}-{stop - 1}/{len(content)}"}
        if trouble in ("unnamed", "strange"):
            headers = {"unnamed": {"X": ""}, "strange": {"Content-Range": "bytes 5"}}[trouble]
        part = content[first:stop]
        self.send_response(206 if headers else 200)
        for header in {**headers, "Content-Length": len(part)}.items():
            self.send_header(*map(str, header))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if trouble in ("half", "stall") else part)
        self.wfile.flush()
        if trouble == "stall":
            server.over.wait(20)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """A web server whose failures are given by an iterator: None, an HTTP code, `drop`, `half`,
    `stall`, or a kind of wrong range."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.ranges, self.troubles = folder, True, repeat(None)
        self.requests, self.over = [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_):
        """Ignore errors, because clients may close the connection early."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(stores, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(stores, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(packed):
    with Server(packed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def global_batches(data, count, ranks=1, workers=0):
    """The first global batches, joined from the parts of all ranks: keys and pixels."""
    corpus = open_corpus(data)
    order = ClipOrder(corpus.samples, 0, 4, shuffle_buffer=2)
    datasets = [ClipDataset(corpus, order, CLIP, rank, ranks, 0) for rank in range(ranks)]
    parts = [
        islice(read_batches(dataset, StreamConfig(workers=workers)), count) for dataset in datasets
    ]
    return [
        ([k for part in step for k in part.keys], torch.cat([part.clips for part in step]))
        for step in zip(*parts, strict=True)
    ]


def assert_same(ours, theirs):
    assert [keys for keys, _ in ours] == [keys for keys, _ in theirs]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def expected(packed):
    return global_batches(packed, 5)


def one_shard(folder):
    """One shard of the folder, and its bytes."""
    shard = read_manifest(folder).shards[3]
    return shard, (folder / shard.name).read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("ranks", [1, 2])
def test_clips_from_a_web_server_equal_those_from_the_folder(server, expected, ranges, ranks):
    server.ranges = ranges
    assert_same(global_batches(server.url + "/", 5, ranks), expected)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("trouble", [503, 429, "drop", "half", "stall"])
def test_a_server_that_fails_every_other_request_changes_no_clip(server, expected, ranges, trouble):
    server.ranges, server.troubles = (
        ranges,
        cycle([trouble, None] if trouble != "stall" else [trouble, *[None] * 5]),
    )
    assert_same(global_batches(server.url, 5), expected)
    assert len(server.requests) > 20


def test_a_server_that_fails_in_every_way_changes_no_clip_for_workers(server, expected):
    server.troubles = cycle([503, "half", None, "drop", "half", "stall", None, None])
    assert_same(global_batches(server.url, 5, workers=2), expected)


def test_reading_resumes_at_the_byte_where_it_broke_off(server, packed):
    shard, content = one_shard(packed)
    server.troubles = chain(["half", "drop", 503, "stall"], repeat(None))
    with open_store(server.url).open(shard.name, 512, 2048, shard.bytes) as file:
        assert file.read() == content[512:2048]
    assert [requested_range for _, requested_range in server.requests] == [
        "bytes=512-2047",
        *["bytes=1280-2047"] * 3,
        "bytes=1664-2047",
    ]


def test_the_number_of_tries_starts_again_after_each_new_byte(server, packed):
    shard, content = one_shard(packed)
    server.troubles = chain([*[503] * 3, "half"] * 3, repeat(None))
    with open_store(server.url).open(shard.name, 0, shard.bytes, shard.bytes) as file:
        assert file.read() == content


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (503, "HTTP 503 Service Unavailable"),
        ("drop", "Remote end closed connection without response"),
        ("half", None),
        ("stall", None),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_persistent_failures_are_reported_with_url_and_byte(
    server, packed, trouble, reason, ranges
):
    shard, content = one_shard(packed)
    server.ranges = ranges
    start, stop = (1024, 1025) if ranges else (len(content) - 512, len(content))
    reason = (
        reason or {"half": r"the connection ended \d+ bytes early", "stall": "timed out"}[trouble]
    )
    server.troubles = repeat(trouble)
    with (
        open_store(server.url).open(shard.name, start, stop, shard.bytes) as file,
        pytest.raises(
            DataError, match=rf"^{server.url}/{shard.name}: byte {start}: {reason} \(5 tries\)$"
        ),
    ):
        file.read()
    assert len(server.requests) == 5


def test_a_persistent_failure_names_the_byte_where_reading_stopped(server, packed):
    shard, _ = one_shard(packed)
    server.troubles = chain(["half"], repeat(503))
    with (
        open_store(server.url).open(shard.name, 512, 2048, shard.bytes) as file,
        pytest.raises(DataError, match=rf"/{shard.name}: byte 1280: HTTP 503"),
    ):
        file.read()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_in_training_names_the_shards_url(server, workers):
    server.troubles = chain([None], repeat(503))
    with pytest.raises(
        DataError,
        match=(
            rf"^{server.url}/shard-0000\d\d\.tar: byte \d+: HTTP 503 Service Unavailable \(5 "
            rf"tries\)$"
        ),
    ):
        global_batches(server.url, 1, workers=workers)


def test_an_unreachable_server_is_reported(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=rf"^{server.url}/manifest\.json: byte 0: .*refused"):
        open_corpus(server.url)


@pytest.mark.parametrize("code", [404, 403])
def test_missing_or_forbidden_files_are_not_requested_again(server, code):
    server.troubles = chain([None], repeat(code))
    with pytest.raises(
        DataError, match=rf"^{server.url}/shard-0000\d\d\.tar: byte 0: HTTP {code} "
    ):
        global_batches(server.url, 1)
    assert len(server.requests) == 2
    with pytest.raises(DataError, match=rf"^{server.url}/manifest\.json: byte 0: HTTP {code} "):
        open_corpus(server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [1000, 50_000])
def test_a_shard_of_the_wrong_size_is_refused_with_both_sizes(
    server, packed, tmp_path, ranges, size
):
    server.folder, server.ranges = shutil.copytree(packed, tmp_path / "copy"), ranges
    shard, content = one_shard(packed)
    (server.folder / shard.name).write_bytes((content + bytes(size))[:size])
    assert size != shard.bytes
    with (
        open_store(server.url).open(shard.name, 2048, 4096, shard.bytes) as file,
        pytest.raises(
            DataError,
            match=(
                rf"^shard {server.url}/{shard.name}: {size} bytes: the manifest says "
                rf"{shard.bytes} bytes$"
            ),
        ),
    ):
        file.read()
    assert len(server.requests) == 1


def test_only_the_wanted_range_of_bytes_is_requested(server, packed):
    shard, content = one_shard(packed)
    with open_store(server.url).open(shard.name, 1000, 3000, shard.bytes) as file:
        assert file.read() == content[1000:3000]
    assert server.requests == [(shard.name, "bytes=1000-2999")]


@pytest.mark.parametrize("trouble", ["early", "late", "unnamed", "strange"])
def test_a_response_with_the_wrong_range_is_not_used(server, packed, trouble):
    shard, content = one_shard(packed)
    store = open_store(server.url)
    server.troubles = chain([trouble], repeat(None))
    with store.open(shard.name, 1000, 3000, shard.bytes) as file:
        assert file.read() == content[1000:3000]
    if trouble != "early":
        server.troubles = repeat(trouble)
        with (
            store.open(shard.name, 1000, 3000, shard.bytes) as file,
            pytest.raises(DataError, match=rf"/{shard.name}: byte 1000: the server answered"),
        ):
            file.read()


def test_reading_a_manifest_resumes_where_it_broke_off(server, packed):
    server.troubles = chain(["half", 503, "half"], repeat(None))
    assert open_store(server.url).manifest() == read_manifest(packed)


def test_a_quoted_url_is_used_as_it_is(server, packed, tmp_path):
    server.folder = tmp_path
    shutil.copytree(packed, tmp_path / "a b%20ü")
    assert open_store(f"{server.url}/a%20b%2520%C3%BC").manifest() == read_manifest(packed)


def test_clips_from_a_command_equal_those_from_the_folder(packed, expected):
    assert_same(global_batches(f"pipe:cat {packed}/{{}}", 5), expected)
    assert_same(global_batches(f"pipe:cat {packed}/{{}}", 5, ranks=2), expected)


FLAKY = """
calls=$(($(cat "$2" 2>/dev/null || echo 0) + 1))
echo $calls > "$2"
if [ $((calls % 2)) = 1 ]; then
    head -c $(($(wc -c < "$1") / 2)) "$1"
    exit 1
fi
cat "$1"
"""


def test_a_command_that_fails_every_other_time_changes_no_clip(packed, expected, tmp_path):
    (tmp_path / "flaky.sh").write_text(FLAKY)
    assert_same(
        global_batches(f"pipe:sh {tmp_path}/flaky.sh {packed}/{{}} {tmp_path}/calls", 5), expected
    )
    assert int((tmp_path / "calls").read_text()) > 20


def test_a_command_that_keeps_failing_is_reported_with_the_byte(packed):
    shard, _ = one_shard(packed)
    command = f"pipe:head -c 1500 {packed}/{{}}; exit 3"
    with (
        open_store(command).open(shard.name, 512, 2048, shard.bytes) as file,
        pytest.raises(DataError) as caught,
    ):
        file.read()
    location = f"{command.replace('{}', shard.name)}: byte 1500"
    assert str(caught.value) == f"{location}: the command ended with exit code 3 (5 tries)"


def test_a_command_with_too_little_output_is_reported(packed):
    shard, _ = one_shard(packed)
    store = open_store(f"pipe:head -c 1500 {packed}/{{}}")
    with (
        store.open(shard.name, 512, 2048, shard.bytes) as file,
        pytest.raises(DataError, match="byte 1500: ended after 988 of 1536 bytes"),
    ):
        file.read()
    with (
        store.open(shard.name, 2048, 4096, shard.bytes) as file,
        pytest.raises(DataError, match="byte 2048: ended 548 bytes before"),
    ):
        file.read()


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("start", [0, 512])
@pytest.mark.parametrize("hang", ["tail -f /dev/null", "exec tail -f /dev/null > /dev/null"])
def test_a_command_that_hangs_is_terminated(packed, tmp_path, start, hang):
    shard, _ = one_shard(packed)
    store = open_store(f"pipe:echo $$ >> {tmp_path}/pids; head -c 100 {packed}/{{}}; {hang}")
    reason = "the command closed its output and did not end" if "exec" in hang else "no byte in"
    with (
        store.open(shard.name, start, 2048, shard.bytes) as file,
        pytest.raises(DataError, match=rf"byte {max(start, 100)}: {reason}"),
    ):
        file.read()
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 5
    assert all(map(has_ended, pids))


def test_a_command_is_terminated_once_its_other_output_is_not_needed(packed, tmp_path):
    shard, content = one_shard(packed)
    store = open_store(f"pipe:echo $$ > {tmp_path}/pid; cat {packed}/{{}}; tail -f /dev/null")
    with store.open(shard.name, 512, 2048, shard.bytes) as file:
        assert file.read() == content[512:2048]
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_a_command_does_not_get_standard_input(packed):
    shard, content = one_shard(packed)
    with open_store(f"pipe:cat - {packed}/{{}}").open(shard.name, 0, 1024, shard.bytes) as file:
        assert file.read() == content[:1024]


def test_a_file_name_is_quoted_for_the_shell(tmp_path):
    (tmp_path / "a; exit 1").write_bytes(b"content")
    with open_store(f"pipe:cat {tmp_path}/{{}}").open("a; exit 1", 0, 7, 7) as file:
        assert file.read() == b"content"


def test_a_command_without_a_placeholder_for_the_name_is_refused():
    with pytest.raises(DataError, match=r"^data 'pipe:cat x': expected \{\} in the command"):
        open_store("pipe:cat x")
