"""The files of a result, and which of them may be overwritten: not inputs, not files that tracking
did not write, and not files that were edited since."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corrflow import InputError
from corrflow.annotations import find_writer
from corrflow.files import content_digest
from corrflow.tracking.previous_result import PreviousResult, written_files
from corrflow.tracking.recording import masks_folder
from corrflow.tracking.staging import check_places, digests_below
from launch.tracking.prompts import Marks, mask_paths
from launch.tracking.request import TrackRequest
from shards.video.decode import frame_files

TABLE_BEGINS = b'{"video": '


def check_names(request: TrackRequest) -> None:
    """InputError if the video is missing, or if results would overwrite inputs or files that
    tracking did not write, or can't be created at their paths."""
    # checked before --out, which names a folder if the user meant a folder of videos
    if not request.video.exists():
        raise InputError(f"video {request.video}: no such file or folder")
    if request.video.is_dir() and not frame_files(request.video):
        raise InputError(f"video {request.video}: no videos and no numbered images")
    if request.out.suffix.lower() != ".mp4":
        raise InputError(f"out {request.out}: expected a name that ends in .mp4")
    check_result_places(request)
    files = result_paths(request.out, request.write, masks=True)
    always = result_paths(request.out, (), masks=True)
    for name, path in inputs_of(request).items():
        found = path.resolve()
        for written in files:
            if written.resolve() in (found, *found.parents):
                hint = "" if written in always else ", or --write without this format"
                raise InputError(
                    f"out {request.out}: would overwrite {name}: expected another name{hint}"
                )
    table = request.out.with_suffix(".json")
    others = [path for path in files if path != request.out and path.exists()]
    if table.exists() and not is_table(table):
        raise InputError(
            f"out {request.out}: would overwrite {table}, which no tracking has written: expected "
            "another name"
        )
    if others and not table.exists() and not request.overwrite:
        raise InputError(
            f"out {request.out}: would overwrite {others[0]}, which no tracking has written: "
            "expected another name, or --overwrite"
        )


def check_result_places(request: TrackRequest) -> None:
    """InputError, before anything is tracked, if results can't be created at their paths."""
    writers = [find_writer(name) for name in request.write]
    files = [writer.path_of(request.out) for writer in writers if not writer.is_folder]
    folders = [writer.path_of(request.out) for writer in writers if writer.is_folder]
    files += result_paths(request.out, (), masks=False)
    check_places(request.out.parent, files, [masks_folder(request.out), *folders])


def inputs_of(request: TrackRequest) -> dict[str, Path]:
    """Paths of all inputs, by a description for messages."""
    inputs = {"the video itself": request.video}
    if request.prompts.labels:
        inputs[f"labels {request.prompts.labels}"] = request.prompts.labels
    return inputs | {f"mask {path}": path for path in mask_paths(request.prompts)}


def check_formats(request: TrackRequest, marks: Marks) -> None:
    """InputError, before anything is tracked, if a format can't hold the marks or its library is
    missing."""
    for name in request.write:
        if marks.masks is not None:
            find_writer(name).check_installed()
        if marks.points and not find_writer(name).has_points:
            raise InputError(f"write {name}: the format has no points: expected another one")


def previous_formats(request: TrackRequest, previous: PreviousResult[Any] | None) -> Iterator[str]:
    """Yield the annotation formats of an earlier result that must be written again to stay up to
    date; InputError if their files were edited."""
    annotations = previous.provenance.annotations if previous else {}
    for name in request.write:
        path = find_writer(name).path_of(request.out)
        if path.exists() and name not in annotations and not request.overwrite:
            raise InputError(
                f"out {request.out}: would overwrite {path}, which no tracking has written: "
                "expected another name, or --overwrite"
            )
    for name, digests in annotations.items():
        path = find_writer(name).path_of(request.out)
        if not path.exists() or holds_labels(path, request):
            continue
        for written, digest in digests.items():
            file = request.out.parent / written
            if file.exists() and content_digest(file) != digest and not request.overwrite:
                raise InputError(
                    f"out {request.out}: would overwrite {file}, which was edited since: "
                    f"expected it read by --labels {path}, or at another place, or --overwrite"
                )
        yield name


def holds_labels(path: Path, request: TrackRequest) -> bool:
    """Whether `path`, of an earlier result, is or contains the labels that are read; then it
    belongs to the user."""
    if request.prompts.labels is None:
        return False
    labels = request.prompts.labels.resolve()
    return path.resolve() in (labels, *labels.parents)


def digests_in_place(request: TrackRequest) -> dict[str, str]:
    """Digests of the files that may be replaced, by their paths relative to the folder of `out`."""
    home, digests = request.out.parent, dict[str, str]()
    previous = {home / Path(name).parts[0] for name in written_files(request.out)}
    for path in previous.union(result_paths(request.out, request.write, masks=True)):
        digests |= digests_below(home, path)
    return digests


def disposable_files(request: TrackRequest, in_place: Mapping[str, str]) -> set[str]:
    """The files of an earlier result that were not edited since, and are not read as labels."""
    return {
        name
        for name, digest in written_files(request.out).items()
        if in_place.get(name) == digest
        and not holds_labels(request.out.parent / Path(name).parts[0], request)
    }


def is_table(path: Path) -> bool:
    """Whether a JSON file was written by tracking, even if it is truncated."""
    with path.open("rb") as file:
        return file.read(len(TABLE_BEGINS)) == TABLE_BEGINS


def result_paths(out: Path, formats: Iterable[str], *, masks: bool) -> tuple[Path, ...]:
    """The files and folders of a complete result."""
    tables = [out.with_suffix(".csv"), out.with_suffix(".json")]
    folders = [masks_folder(out)] if masks else []
    annotations = [find_writer(name).path_of(out) for name in formats]
    return (out, *tables, *folders, *annotations)
