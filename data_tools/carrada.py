"""Look at a tree of CARRADA, or pack its sequences into HDF5 files.

    python data_tools/carrada.py check data/Carrada
    python data_tools/carrada.py pack data/Carrada --coding log_float16

``check`` goes through every sequence: the same frames in cubes, views and masks, shape, dtype and size of every file,
time stamps, labels outside the views or of frames that do not exist, the known numbers of labelled frames, and for a
few frames the values: NaN, and views that are not those of their cube. Its exit status is 1 if it found an error.

``pack`` writes ``SEQUENCE.h5`` files into ``Carrada_packed`` beside the tree, where the dataset finds them: cubes,
processed views and masks, read back and compared before a file gets its name. Sequences that are packed already are
left alone, so that a stopped run can be started again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adperception.datasets.carrada import find_tree
from adperception.datasets.carrada_check import check_carrada
from adperception.datasets.formats.carrada import read_frames, read_sensor
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import Coding, Compression, pack_coding, pack_file, pack_sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "pack"])
    parser.add_argument("root", type=Path, help="folder with data_seq_ref.json in it")
    parser.add_argument("--rad-root", type=Path, help="folder of the RAD tensors (default: Carrada_RAD beside root)")
    parser.add_argument("--sequences", nargs="+", help="only these (default: all)")
    parser.add_argument("--frames", type=int, default=3, help="check: read the values of so many frames per sequence")
    parser.add_argument("--out", type=Path, help="pack: folder of the .h5 files (default: Carrada_packed beside root)")
    parser.add_argument(
        "--coding",
        choices=["lossless", "log_float16"],
        default="lossless",
        help="pack: log_float16 halves the cubes, with an error of at most 1/32 dB (default: %(default)s)",
    )
    parser.add_argument(
        "--compression",
        choices=["none", "lzf", "gzip"],
        default="none",
        help="pack: smaller files, slower to read (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=1, help="pack: processes (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            report = check_carrada(options.root, options.rad_root, options.sequences, options.frames)
            print(report.table())
            return 1 if report.failed else 0
        return pack(
            find_tree(options.root),
            options.rad_root,
            options.out,
            options.sequences,
            options.coding,
            options.compression,
            options.workers,
        )
    except (ValueError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def pack(
    root: Path,
    rad_root: Path | None,
    out: Path | None,
    sequences: Sequence[str] | None,
    coding: Coding,
    compression: Compression,
    workers: int,
) -> int:
    """Pack the sequences that are not packed yet."""
    frames = read_frames(root)
    names = sorted(frames) if sequences is None else list(sequences)
    unknown = [name for name in names if name not in frames]
    if unknown:
        raise ValueError(f"{root}: sequence {unknown[0]} is not in light_dataset_frame_oriented.json.")
    folder = root.parent / "Carrada_packed" if out is None else out
    default = root.parent / "Carrada_RAD"
    rad_root = (default if default.is_dir() else None) if rad_root is None else rad_root
    if rad_root is None:
        print(f"note: {default} does not exist: only views and masks are packed.")
    done = [name for name in names if pack_file(folder, name).is_file()]
    for name in done:
        if pack_coding(pack_file(folder, name)) != coding:
            raise ValueError(
                f"{pack_file(folder, name)} is there but its coding is not {coding}. Remove it, or give another --out."
            )
    job = partial(_pack, CarradaFiles(root, rad_root, read_sensor(root).grid), folder, coding, compression)
    todo = [(name, frames[name]) for name in names if name not in done]
    if workers > 1 and len(todo) > 1:
        with multiprocessing.get_context("spawn").Pool(min(workers, len(todo))) as pool:
            for line in pool.imap(job, todo):
                print(line, flush=True)
    else:
        for each in todo:
            print(job(each), flush=True)
    print(f"{folder}: {len(todo)} sequences packed, {len(done)} were there")
    return 0


def _pack(
    files: CarradaFiles, folder: Path, coding: Coding, compression: Compression, what: tuple[str, tuple[str, ...]]
) -> str:
    sequence, frames = what
    error = pack_sequence(files, folder, sequence, frames, coding, compression)
    size = pack_file(folder, sequence).stat().st_size
    lossy = f", largest error {error:.4f} dB" if coding == "log_float16" else ""
    return f"{pack_file(folder, sequence)}: {len(frames)} frames, {size / 2**20:,.1f} MiB{lossy}"


if __name__ == "__main__":
    sys.exit(main())
