"""Measure the sparse backends and the block sizes of the Triton kernels on this GPU: python tools/tune_sparse.py

Run it once per kind of GPU, before training; runs read the results and never tune. See docs/sparse_convolutions.md.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="which GPU (default: cuda:0)")
    parser.add_argument("--minutes", type=float, default=5.0, help="time for block sizes (default: 5)")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[4, 16], help="frames per batch (default: 4 16)")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=["float32", "bfloat16", "float16"],
        default=["bfloat16", "float32"],
        help="default: bfloat16 float32",
    )
    options = parser.parse_args()

    import torch

    from adperception.sparse.backends import available_backends, triton_problem
    from adperception.sparse.tuning import DeviceTuning, cache_folder, write_tuning

    device = torch.device(options.device)
    if device.type != "cuda" or not torch.cuda.is_available():
        print(f"error: {options.device}: there is nothing to tune without a CUDA device.", file=sys.stderr)
        return 1
    problem = triton_problem(device)
    if problem:
        print(f'error: sparse backend "triton": {problem}.', file=sys.stderr)
        return 1

    from adperception.engine.sparse_tuning import measure_backends, tune_blocks

    print(f"{torch.cuda.get_device_name(device)}: block sizes, milliseconds before and after", flush=True)
    for tuned in tune_blocks(device, options.precision, options.batch_size, seconds=60 * options.minutes):
        print(f"  {tuned.key:58} {tuned.before:8.3f} {tuned.after:8.3f}  {tuned.blocks}", flush=True)
    backends = measure_backends(device, available_backends(device), options.precision)
    for precision, times in backends.items():
        row = ", ".join(f"{name} {time:.2f}" for name, time in sorted(times.items(), key=lambda entry: entry[1]))
        print(f"forward and backward of VoxelBackBone8x, {precision}, ms: {row}", flush=True)
    write_tuning(device, DeviceTuning(backends=backends))
    print(f"kept in {cache_folder() / 'sparse_tuning.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
