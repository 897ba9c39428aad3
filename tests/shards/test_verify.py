import errno
import io
import os
import shutil
from dataclasses import replace

import pytest
import webdataset as wds
from PIL import Image

from shards.errors import DataError
from shards.files import sha256_of
from shards.manifest import read_manifest, write_manifest
from shards.samples import read_samples
from shards.verify import check_sample, verify


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "copy")


def damages(folder, processes=1):
    return sorted(line for _, found in verify(folder, processes) for line in found)


def rewrite(path, change):
    """Apply a change to a shard's samples, and write them again."""
    samples = list(read_samples(path))
    change(samples)
    with wds.TarWriter(str(path), encoder=False) as tar:
        for sample in samples:
            tar.write(
                {
                    name: value
                    for name, value in sample.items()
                    if name in ("__key__", "json") or name.endswith(".jpg")
                }
            )


def test_an_unchanged_folder_has_no_damage_with_any_number_of_processes(copy):
    assert damages(copy) == damages(copy, 2) == []
    assert len(list(verify(copy, 1))) == len(read_manifest(copy).shards) + 1


def test_missing_truncated_and_unlisted_shards_are_named(copy):
    first, second, *_ = sorted(copy.glob("*.tar"))
    unlisted = copy / "zz-strange.tar"
    shutil.copy(first, unlisted)
    first.unlink()
    second.write_bytes(second.read_bytes()[:3000])
    found = damages(copy)
    assert f"{first.name}: missing" in found
    assert any(line.startswith(f"{second.name}: 3000 bytes, the manifest says") for line in found)
    within = [line for line in found if line.startswith(second.name) and "bytes" not in line]
    assert any(line.startswith(f"{second.name}, sample #0: not readable") for line in within)
    assert any(
        line.endswith("holds 0 samples and 0 frames, the manifest says 1 and 4") for line in within
    )
    assert f"{unlisted.name}: is not in the manifest" in found


def test_shards_that_a_failing_disk_cannot_read_are_all_named(copy, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("shards.verify.sha256_of", fail)
    first, *others = sorted(copy.glob("*.tar"))
    first.unlink()
    first.symlink_to("/proc/self/mem")  # reading at its beginning fails
    found = damages(copy)
    assert f"{first.name}, sample #0: not readable (Input/output error)" in found
    assert found[3:] == [f"{o.name}: can't be read to its end (Input/output error)" for o in others]


def test_a_damaged_frame_is_named_with_its_sample(copy):
    path = sorted(copy.glob("*.tar"))[0]
    key = next(read_samples(path))["__key__"]

    def damage_frames(samples):
        samples[0]["001.jpg"] = b"no JPEG"
        del samples[0]["002.jpg"]

    rewrite(path, damage_frames)
    found = damages(copy)
    assert any(
        line.startswith(f"{path.name}, sample {key}: 001.jpg is not a readable JPEG")
        and " object at " not in line
        for line in found
    )
    assert f"{path.name}, sample {key}: 002.jpg is missing" in found


def test_a_frame_that_was_replaced_by_another_picture_is_detected(copy):
    path = sorted(copy.glob("*.tar"))[0]

    def replace_frame(samples):
        with Image.open(io.BytesIO(samples[0]["000.jpg"])) as image:
            buffer = io.BytesIO()
            Image.new("RGB", image.size).save(buffer, "JPEG")
        samples[0]["000.jpg"] = buffer.getvalue()

    rewrite(path, replace_frame)
    assert any("sha256 differs" in line or "the manifest says" in line for line in damages(copy))


def test_a_sample_with_several_frame_sizes_is_named_even_if_its_hash_fits(copy):
    path = sorted(copy.glob("*.tar"))[0]
    key = next(read_samples(path))["__key__"]

    def rotate_frame(samples):
        buffer = io.BytesIO()
        Image.new("RGB", (48, 64)).save(buffer, "JPEG")
        samples[0]["002.jpg"] = buffer.getvalue()

    rewrite(path, rotate_frame)
    reason = "is 48x64, those before 64x48"
    assert list(check_sample(next(read_samples(path)))) == [("002.jpg", reason)]
    manifest = read_manifest(copy)  # earlier versions packed such samples
    shard = replace(manifest.shards[0], bytes=path.stat().st_size, sha256=sha256_of(path))
    write_manifest(copy, replace(manifest, shards=(shard, *manifest.shards[1:])))
    assert damages(copy) == [f"{path.name}, sample {key}: 002.jpg {reason}"]


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json there"):
        damages(tmp_path)
