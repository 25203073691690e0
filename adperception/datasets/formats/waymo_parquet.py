"""Waymo Open Dataset v2: which Parquet files and columns there are, and how to read the rows of one frame.

A recording ("segment", 20 s) has one file per component, ``COMPONENT/SEGMENT.parquet``. Rows carry keys (segment, frame
time in microseconds, LiDAR) and flat columns. Only the row groups that may hold a frame are opened, and of these only
rows up to the wanted ones are decoded, so that a reader's memory does not grow with the files. pyarrow is imported
where it is used, and works in the calling thread: data workers are the parallel ones. Facts:
``src/waymo_open_dataset/v2`` of Waymo's repository.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.optional import import_extra
from adperception.datasets.formats.waymo_range_image import LaserCalibration

__all__ = [
    "BOX_TYPES",
    "COMPONENTS",
    "ComponentWriter",
    "LaserRows",
    "WaymoBoxes",
    "frame_times",
    "group_by_frame",
    "is_grouped_by_frame",
    "read_boxes",
    "read_calibrations",
    "read_frame_pose",
    "read_laser_rows",
    "require_pyarrow",
    "schema_of",
]

COMPONENTS = ("lidar", "lidar_calibration", "lidar_pose", "vehicle_pose", "lidar_box")
"""What a detector needs of the dataset's components."""

BOX_TYPES = {1: "Vehicle", 2: "Pedestrian", 3: "Sign", 4: "Cyclist"}

_SEGMENT, _TIME, _LASER = "key.segment_context_name", "key.frame_timestamp_micros", "key.laser_name"
_LIDAR, _POSE, _BOX = "[LiDARComponent]", "[LiDARPoseComponent]", "[LiDARBoxComponent]"
_CALIBRATION = "[LiDARCalibrationComponent]"
_EXTRINSIC = f"{_CALIBRATION}.extrinsic.transform"
_INCLINATION = f"{_CALIBRATION}.beam_inclination"
_WORLD_FROM_VEHICLE = "[VehiclePoseComponent].world_from_vehicle.transform"
_BOX_VALUES = tuple(f"{_BOX}.box.{n}" for n in ("center.x", "center.y", "center.z", "size.x", "size.y", "size.z"))
_BOX_VALUES += (f"{_BOX}.box.heading",)
_BOX_KIND, _BOX_POINTS = f"{_BOX}.type", f"{_BOX}.num_lidar_points_in_box"
_BOX_DIFFICULTY = f"{_BOX}.difficulty_level.detection"


# Noise of ranges and intensities repeats nowhere: dictionaries only cost time and space.
_WRITING: Mapping[str, Any] = {"compression": "zstd", "use_dictionary": False}


@dataclass(frozen=True)
class LaserRows:
    """The range images of one frame.

    Attributes:
        images: LiDAR number to its images ``(H, W, 4)``, one per wanted return; ``None`` where there is none.
    """

    images: dict[int, list[NDArray[np.float32] | None]]


@dataclass(frozen=True)
class WaymoBoxes:
    """Labelled objects of one frame as the file has them.

    Attributes:
        boxes: ``(M, 7)`` float32 x, y, z, length, width, height, heading: vehicle frame, metres, radians.
        names: M class names (``BOX_TYPES``; types without a name are left out).
        points: ``(M,)`` LiDAR points inside.
        flags: ``(M,)`` difficulty that the annotators gave for detection: 1, 2, or 0 for none.
    """

    boxes: NDArray[np.float32]
    names: tuple[str, ...]
    points: NDArray[np.int64]
    flags: NDArray[np.int64]


def require_pyarrow() -> None:
    """Raise an ImportError that names the fix if Parquet cannot be read."""
    import_extra("pyarrow.parquet", "parquet", "Parquet files")


def frame_times(path: Path) -> NDArray[np.int64]:
    """``(F,)`` times of the frames of a file in microseconds, ascending, each once."""
    with _opened(path) as file:
        times = _column(path, file.read(columns=_known(path, file, [_TIME]), use_threads=False), _TIME).to_numpy()
    return np.unique(times.astype(np.int64))


def read_laser_rows(
    path: Path, time: int, lasers: Sequence[int], returns: Sequence[int] = (1,), *, poses: bool = False
) -> LaserRows:
    """The range images of the frame at ``time``.

    Args:
        path: a ``lidar`` file, or a ``lidar_pose`` file with ``poses``.
        time: of the frame, microseconds.
        lasers: numbers of the LiDARs; those without a row are left out.
        returns: which returns, of 1 and 2.
        poses: read per-pixel poses instead.

    Raises:
        FileNotFoundError, ValueError: for a missing, damaged or incomplete file, naming it.
    """
    component = _POSE if poses else _LIDAR
    names = [f"{component}.range_image_return{r}" for r in returns]
    columns = [f"{name}.{part}" for name in names for part in ("values", "shape")]
    images: dict[int, list[NDArray[np.float32] | None]] = {}
    with _opened(path) as file:
        _known(path, file, [_TIME, _LASER, *columns])
        for group in _groups_with(file, time):
            keys = file.read_row_group(group, columns=[_TIME, _LASER], use_threads=False)
            number = _column(path, keys, _LASER).to_numpy()
            mine = (_column(path, keys, _TIME).to_numpy() == time) & np.isin(number, list(lasers))
            for row, values in _rows(file, group, np.flatnonzero(mine), columns):
                images[int(number[row])] = [_image(path, time, values, name) for name in names]
    return LaserRows(images)


def read_calibrations(path: Path) -> dict[int, LaserCalibration]:
    """The calibration of every LiDAR of a segment by its number."""
    names = [_LASER, _EXTRINSIC, *(f"{_INCLINATION}.{n}" for n in ("min", "max", "values"))]
    with _opened(path) as file:
        rows = file.read(columns=_known(path, file, names), use_threads=False).to_pylist()
    calibrations = {}
    for row in rows:
        table = row[f"{_INCLINATION}.values"]
        calibrations[int(row[_LASER])] = LaserCalibration(
            _matrix(path, row[_EXTRINSIC], f"extrinsic of LiDAR {row[_LASER]}"),
            float(row[f"{_INCLINATION}.min"]),
            float(row[f"{_INCLINATION}.max"]),
            np.array(table, dtype=np.float64) if table else None,
        )
    return calibrations


def read_frame_pose(path: Path, time: int) -> NDArray[np.float64]:
    """``(4, 4)`` pose of the vehicle in the world at ``time``.

    Raises:
        ValueError: if there is none.
    """
    with _opened(path) as file:
        table = file.read(columns=_known(path, file, [_TIME, _WORLD_FROM_VEHICLE]), use_threads=False)
    at = np.flatnonzero(_column(path, table, _TIME).to_numpy() == time)
    if not len(at):
        raise ValueError(f"{path}: no vehicle pose for the frame at {time}. The file is incomplete: copy it again.")
    return _matrix(path, table[_WORLD_FROM_VEHICLE][int(at[0])].as_py(), f"vehicle pose at {time}")


def read_boxes(path: Path, time: int) -> WaymoBoxes:
    """The labelled objects of the frame at ``time``; none is a legal answer.

    Raises:
        ValueError: for a damaged file, or a box with a number that is not finite or a size that is not positive.
    """
    columns = [_TIME, *_BOX_VALUES, _BOX_KIND, _BOX_POINTS, _BOX_DIFFICULTY]
    with _opened(path) as file:
        _known(path, file, columns)
        groups = _groups_with(file, time)
        table = (
            file.read_row_groups(groups, columns=columns, use_threads=False)
            if groups
            else file.schema_arrow.empty_table()
        )
    times = _column(path, table, _TIME).to_numpy()
    kinds = table[_BOX_KIND].to_numpy()
    mine = np.flatnonzero((times == time) & np.isin(kinds, list(BOX_TYPES)))
    values = np.stack([table[name].to_numpy()[mine] for name in _BOX_VALUES], axis=1).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1) | (values[:, 3:6] <= 0).any(axis=1))
    if len(wrong):
        raise ValueError(
            f"{path}: frame {time}: box {wrong[0] + 1} of {len(values)} reads {values[wrong[0]].tolist()} (x, y, z, "
            "length, width, height, heading); numbers must be finite and sizes positive. Copy the file again."
        )
    return WaymoBoxes(
        values,
        tuple(BOX_TYPES[int(kind)] for kind in kinds[mine]),
        _integers(table[_BOX_POINTS])[mine],
        _integers(table[_BOX_DIFFICULTY])[mine],
    )


def schema_of(component: str) -> Any:
    """The Arrow schema of a component's files, the columns that are read here and the keys."""
    require_pyarrow()
    import pyarrow as pa

    image = {"values": pa.list_(pa.float32()), "shape": pa.list_(pa.int32(), 3)}
    transform = pa.list_(pa.float64(), 16)
    keys = {_SEGMENT: pa.string(), _TIME: pa.int64(), _LASER: pa.int8()}
    vector = {axis: pa.float64() for axis in "xyz"}
    columns: dict[str, dict[str, Any]] = {
        "lidar": {**keys, **{f"{_LIDAR}.range_image_return{r}.{n}": t for r in (1, 2) for n, t in image.items()}},
        "lidar_pose": {**keys, **{f"{_POSE}.range_image_return1.{n}": t for n, t in image.items()}},
        "vehicle_pose": {_SEGMENT: pa.string(), _TIME: pa.int64(), _WORLD_FROM_VEHICLE: transform},
        "lidar_calibration": {
            _SEGMENT: pa.string(),
            _LASER: pa.int8(),
            _EXTRINSIC: transform,
            f"{_INCLINATION}.min": pa.float64(),
            f"{_INCLINATION}.max": pa.float64(),
            f"{_INCLINATION}.values": pa.list_(pa.float64()),
        },
        "lidar_box": {
            _SEGMENT: pa.string(),
            _TIME: pa.int64(),
            "key.laser_object_id": pa.string(),
            **dict.fromkeys(_BOX_VALUES, pa.float64()),
            _BOX_KIND: pa.int8(),
            _BOX_POINTS: pa.int64(),
            f"{_BOX}.num_top_lidar_points_in_box": pa.int64(),
            **{f"{_BOX}.speed.{axis}": t for axis, t in vector.items()},
            **{f"{_BOX}.acceleration.{axis}": t for axis, t in vector.items()},
            _BOX_DIFFICULTY: pa.int8(),
            f"{_BOX}.difficulty_level.tracking": pa.int8(),
        },
    }
    return pa.schema(list(columns[component].items()))


class ComponentWriter:
    """Writes the file of a component row by row; a context manager.

    Args:
        path: of the file; its folder must exist.
        component: of ``COMPONENTS``.
        rows_per_group: rows that are kept in memory and written together. Waymo's own files have 256.
    """

    def __init__(self, path: Path, component: str, rows_per_group: int = 256) -> None:
        self.schema = schema_of(component)
        import pyarrow.parquet as pq

        self.rows_per_group = rows_per_group
        self._rows: list[Mapping[str, Any]] = []
        self._file = pq.ParquetWriter(path, self.schema, **_WRITING)

    def __enter__(self) -> ComponentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows:
            self._write()
        self._file.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row: column name to value; columns that are missing are empty."""
        self._rows.append(row)
        if len(self._rows) == self.rows_per_group:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        columns = [pa.array([row.get(field.name) for row in self._rows], type=field.type) for field in self.schema]
        self._file.write_table(pa.table(columns, schema=self.schema))
        self._rows = []


def is_grouped_by_frame(path: Path) -> bool:
    """Whether a ``lidar`` or ``lidar_pose`` file has a row group of its own for every frame."""
    frames = len(frame_times(path))
    with _opened(path) as file:
        return bool(file.metadata.num_row_groups >= frames)


def group_by_frame(path: Path) -> None:
    """Rewrite a ``lidar`` or ``lidar_pose`` file with a row group per frame: same rows, same columns, same order.

    Parquet is read by the row group; Waymo's hold some fifty frames, of which half are decoded on average to reach one.
    The new file takes the place of the old one when it is complete and has its keys.

    Raises:
        ValueError: if the file is damaged, or the copy does not equal it.
    """
    import pyarrow.parquet as pq

    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with _opened(path) as file:
            _known(path, file, [_TIME, _LASER])
            keys = file.read(columns=[_TIME, _LASER], use_threads=False)
            with pq.ParquetWriter(scratch, file.schema_arrow, **_WRITING) as writer:
                for table in _frames(file):
                    writer.write_table(table)
        with _opened(scratch) as copy:
            if not copy.read(columns=[_TIME, _LASER], use_threads=False).equals(keys):
                raise ValueError(f"{path}: the copy with a row group per frame has other rows. The file is unchanged.")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _frames(file: Any) -> Iterator[Any]:
    """Runs of rows with the same time, one table each."""
    import pyarrow as pa

    run: list[Any] = []
    for row in file.iter_batches(batch_size=1, use_threads=False):
        if run and row[_TIME][0] != run[0][_TIME][0]:
            yield pa.Table.from_batches(run)
            run = []
        run.append(row)
    if run:
        yield pa.Table.from_batches(run)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, with errors that name it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Download the component {path.parent.name} of this segment.")
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}). It was probably cut off: download it "
            "again."
        ) from error


def _known(path: Path, file: Any, columns: list[str]) -> list[str]:
    present = set(file.schema_arrow.names)
    missing = [name for name in columns if name not in present]
    if missing:
        raise ValueError(
            f"{path}: no column {missing[0]}. The file is no {path.parent.name} component of Waymo Open Dataset v2 "
            f"(its columns: {', '.join(sorted(present)[:6])} ...)."
        )
    return columns


def _groups_with(file: Any, time: int) -> list[int]:
    """Row groups that may hold rows of a frame, by the statistics of the file."""
    metadata = file.metadata
    column = file.schema_arrow.names.index(_TIME)  # keys come first and are flat: field number is column number
    if metadata.num_row_groups and metadata.row_group(0).column(column).path_in_schema != _TIME:
        return list(range(metadata.num_row_groups))
    groups = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max or statistics.min <= time <= statistics.max:
            groups.append(group)
    return groups


def _rows(file: Any, group: int, wanted: NDArray[np.int64], columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Rows of a row group by position in it. Decoding stops after the last wanted one."""
    if not len(wanted):
        return
    first, last = 0, int(wanted[-1])
    for batch in file.iter_batches(batch_size=5, row_groups=[group], columns=columns, use_threads=False):
        for row in wanted[(wanted >= first) & (wanted < first + batch.num_rows)]:
            yield int(row), batch.slice(int(row) - first, 1)
        first += batch.num_rows
        if first > last:
            return


def _image(path: Path, time: int, row: Any, name: str) -> NDArray[np.float32] | None:
    shape = row.column(f"{name}.shape")[0].as_py()
    cell = row.column(f"{name}.values")[0]
    if shape is None or not cell.is_valid:
        return None
    values = cell.values.to_numpy(zero_copy_only=False)
    if len(shape) != 3 or int(np.prod(shape)) != len(values):
        raise ValueError(
            f"{path}: frame {time}: {name} has {len(values):,} values for the shape {shape}. Download the file again."
        )
    return np.asarray(values, dtype=np.float32).reshape(shape)


def _matrix(path: Path, values: Any, what: str) -> NDArray[np.float64]:
    matrix = np.array(values if values is not None else [], dtype=np.float64)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise ValueError(f"{path}: {what} is not a 4 x 4 matrix of finite numbers. Download the file again.")
    return matrix.reshape(4, 4)


def _column(path: Path, table: Any, name: str) -> Any:
    column = table[name]
    if column.null_count:
        raise ValueError(f"{path}: {column.null_count} rows have no {name}. Download the file again.")
    return column


def _integers(column: Any) -> NDArray[np.int64]:
    """A column of whole numbers; empty cells are 0."""
    return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int64)
