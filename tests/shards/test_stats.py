import shutil

import pytest

from shards.errors import DataError
from shards.manifest import read_manifest
from shards.stats import collect


def test_the_statistics_match_the_packed_videos(packed):
    """`packed` has four videos of 8 frames at 25 frames per second, 64x48, in segments of 4."""
    found = collect(packed, clip_frames=3, processes=2)
    assert (len(found.videos), found.segments, found.frames, found.clips) == (4, 8, 32, 8)
    assert found.seconds == pytest.approx(32 / 25, rel=0.01)
    assert found.bytes == sum(shard.bytes for shard in read_manifest(packed).shards)
    assert found.sizes == {(64, 48): 32}


def test_clips_are_counted_without_common_frames(packed):
    assert collect(packed, clip_frames=2, processes=1).clips == 16


def test_a_damaged_shard_is_named(packed, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "copy")
    path = sorted(copy.glob("*.tar"))[0]
    path.write_bytes(b"not a tar file" * 100)
    with pytest.raises(DataError, match=path.name):
        collect(copy, 3, 1)
