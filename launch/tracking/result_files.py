"""The files that a tracking leaves, and whose they are: nothing is overwritten that is read, that
no tracking wrote, or that somebody has changed since."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from corrflow import InputError
from corrflow.annotations import find_writer
from corrflow.files import content_digest
from corrflow.tracking.earlier import Earlier, written_files
from corrflow.tracking.recording import masks_folder
from corrflow.tracking.staging import check_places, digests_below
from launch.tracking.prompts import Marked, mask_paths
from launch.tracking.request import TrackRequest

TABLE_BEGINS = b'{"video": '


def check_names(order: TrackRequest) -> None:
    """InputError for results that would overwrite what is read, or what is none of ours, or that
    can't get their names."""
    if order.out.suffix.lower() != ".mp4":
        raise InputError(f"out {order.out}: expected a name that ends in .mp4")
    check_result_places(order)
    files = result_paths(order.out, order.write, masks=True)
    written = [path.resolve() for path in files]
    for name, path in inputs_of(order).items():
        found = path.resolve()
        if any(other in (found, *found.parents) for other in written):
            raise InputError(f"out {order.out}: would overwrite {name}: expected another name")
    table = order.out.with_suffix(".json")
    others = [path for path in files if path != order.out and path.exists()]
    if table.exists() and not is_table(table):
        raise InputError(
            f"out {order.out}: would overwrite {table}, which no tracking has written: expected "
            "another name"
        )
    if others and not table.exists() and not order.overwrite:
        raise InputError(
            f"out {order.out}: would overwrite {others[0]}, which no tracking has written: "
            "expected another name, or --overwrite"
        )


def check_result_places(order: TrackRequest) -> None:
    """InputError, before anything is tracked, for results that can't get their names."""
    writers = [find_writer(name) for name in order.write]
    files = [writer.path_of(order.out) for writer in writers if not writer.is_folder]
    folders = [writer.path_of(order.out) for writer in writers if writer.is_folder]
    files += result_paths(order.out, (), masks=False)
    check_places(order.out.parent, files, [masks_folder(order.out), *folders])


def inputs_of(order: TrackRequest) -> dict[str, Path]:
    """What is read, by what it is."""
    inputs = {"the video itself": order.video}
    if order.prompts.labels:
        inputs[f"labels {order.prompts.labels}"] = order.prompts.labels
    return inputs | {f"mask {path}": path for path in mask_paths(order.prompts)}


def check_formats(order: TrackRequest, marked: Marked) -> None:
    """InputError, before anything is tracked, for a format that can't hold what is marked or lacks
    a library."""
    for name in order.write:
        if marked.masks is not None:
            find_writer(name).check_installed()
        if marked.points and not find_writer(name).has_points:
            raise InputError(f"write {name}: the format has no points: expected another one")


def earlier_formats(order: TrackRequest, earlier: Earlier[Any] | None) -> Iterator[str]:
    """The formats of annotations that are there and would no longer be true; InputError if somebody
    has edited one."""
    annotations = earlier.made_from.annotations if earlier else {}
    for name in order.write:
        path = find_writer(name).path_of(order.out)
        if path.exists() and name not in annotations and not order.overwrite:
            raise InputError(
                f"out {order.out}: would overwrite {path}, which no tracking has written: expected "
                "another name, or --overwrite"
            )
    for name, digests in annotations.items():
        path = find_writer(name).path_of(order.out)
        if not path.exists() or holds_labels(path, order):
            continue
        for written, digest in digests.items():
            file = order.out.parent / written
            if file.exists() and content_digest(file) != digest and not order.overwrite:
                raise InputError(
                    f"out {order.out}: would overwrite {file}, which was edited since: expected it "
                    f"read by --labels {path}, or at another place, or --overwrite"
                )
        yield name


def holds_labels(path: Path, order: TrackRequest) -> bool:
    """Whether an earlier result is read as labels, or some of it is: it is the user's own then."""
    if order.prompts.labels is None:
        return False
    labels = order.prompts.labels.resolve()
    return path.resolve() in (labels, *labels.parents)


def digests_in_place(order: TrackRequest) -> dict[str, str]:
    """Of the files that may be replaced, by their paths beside `out`."""
    home, digests = order.out.parent, dict[str, str]()
    earlier = {home / Path(name).parts[0] for name in written_files(order.out)}
    for path in earlier.union(result_paths(order.out, order.write, masks=True)):
        digests |= digests_below(home, path)
    return digests


def disposable_files(order: TrackRequest, in_place: Mapping[str, str]) -> set[str]:
    """Those of an earlier tracking that nobody has changed since, nor made his own."""
    return {
        name
        for name, digest in written_files(order.out).items()
        if in_place.get(name) == digest
        and not holds_labels(order.out.parent / Path(name).parts[0], order)
    }


def is_table(path: Path) -> bool:
    """Whether a JSON file is of a tracking, even if it was cut off."""
    with path.open("rb") as file:
        return file.read(len(TABLE_BEGINS)) == TABLE_BEGINS


def result_paths(out: Path, formats: Iterable[str], *, masks: bool) -> tuple[Path, ...]:
    """The files and folders that a finished order leaves."""
    tables = [out.with_suffix(".csv"), out.with_suffix(".json")]
    folders = [masks_folder(out)] if masks else []
    annotations = [find_writer(name).path_of(out) for name in formats]
    return (out, *tables, *folders, *annotations)
