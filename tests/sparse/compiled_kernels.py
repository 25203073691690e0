"""Compiles the Triton kernels for GPUs that need not be there, and prints what each needs of a processor, as JSON.

Run as a program, in a process of its own: under the interpreter, where the tests run, kernels cannot be compiled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from adperception.sparse import triton_kernels as kernels
from adperception.sparse.triton_operators import TABLE_ROWS
from adperception.sparse.tuning import convolve_blocks, weight_gradient_blocks

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
CPU = torch.device("cpu")  # no measurements: the default blocks


def convolve(dtype: str, precision: str, inputs: int, outputs: int, rows: int, backwards: bool) -> Any:
    blocks = convolve_blocks(dtype, inputs, outputs, 27, rows, CPU)
    constants = {"IN": inputs, "OUT": outputs, "VOLUME": 27, "TRANSPOSED": backwards, "MIRRORED": backwards}
    constants |= {"PRECISION": precision, "BLOCK_ROWS": blocks.rows}
    constants |= {"BLOCK_IN": blocks.in_channels, "BLOCK_OUT": blocks.out_channels}
    types = {"features": dtype, "weight": dtype, "output": dtype}
    return kernels.convolve, types, constants, {"num_warps": blocks.warps, "num_stages": blocks.stages}


def weight_gradient(dtype: str, precision: str, inputs: int, outputs: int) -> Any:
    blocks = weight_gradient_blocks(dtype, inputs, outputs, 27, 100_000, CPU)
    constants = {"IN": inputs, "OUT": outputs, "TAPS": 32, "PRECISION": precision, "BLOCK_PAIRS": blocks.pairs}
    constants |= {"BLOCK_IN": blocks.in_channels, "BLOCK_OUT": blocks.out_channels}
    types = {"features": dtype, "gradient": dtype, "partial": "float32"}
    return kernels.weight_gradient, types, constants, {"num_warps": blocks.warps, "num_stages": blocks.stages}


def tables() -> dict[str, Any]:
    geometry = dict.fromkeys(("STRIDE_Z", "STRIDE_Y", "STRIDE_X"), 2)
    geometry |= dict.fromkeys(("PADDING_Z", "PADDING_Y", "PADDING_X"), 1) | {
        "SIZE_Y": 3,
        "SIZE_X": 3,
        "BLOCK": TABLE_ROWS,
    }
    return {
        "find_sources": (kernels.find_sources, {}, geometry, {}),
        "find_sources int64": (kernels.find_sources, {"keys": "int64"}, geometry, {}),
        "invert_sources": (kernels.invert_sources, {}, {"BLOCK": TABLE_ROWS}, {}),
        "tap_masks": (kernels.tap_masks, {}, {"VOLUME": 27, "BLOCK": TABLE_ROWS}, {}),
        "block_taps": (kernels.block_taps, {}, {"VOLUME": 27, "BLOCK": 128}, {}),
        "count_pairs": (kernels.count_pairs, {}, {"BLOCK": TABLE_ROWS}, {}),
        "write_pairs": (kernels.write_pairs, {}, {"BLOCK": TABLE_ROWS}, {}),
        "plan_segments": (kernels.plan_segments, {}, {"VOLUME": 27, "TAPS": 32}, {}),
        "add_segments": (
            kernels.add_segments,
            {"partial": "float32", "result": "float32"},
            {"IN": 64, "OUT": 64, "VOLUME": 27, "TAPS": 32, "BLOCK": TABLE_ROWS},
            {},
        ),
    }


def products() -> dict[str, Any]:
    found = {}
    for dtype, precision in (("bfloat16", "ieee"), ("float16", "ieee"), ("float32", "ieee"), ("float32", "tf32x3")):
        for inputs, outputs in ((64, 64),) if dtype == "float16" else ((4, 16), (64, 128)):
            name = f"{dtype} {precision} {inputs}x{outputs}"
            found[f"convolve {name}"] = convolve(dtype, precision, inputs, outputs, 100_000, False)
            found[f"weight_gradient {name}"] = weight_gradient(dtype, precision, inputs, outputs)
        found[f"convolve backwards {dtype} {precision} 64x64"] = convolve(dtype, precision, 64, 64, 20_000, True)
    return found


def compile_kernel(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, int], target: Any
) -> Any:
    scalars = ("rows", "sites", "key_count", "search_steps", "depth", "height", "width", "blocks", "wanted", "least")
    signature, attributes = {}, {}
    for number, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in scalars:
            signature[name] = "i32"
        else:
            dtype = types.get(name, "int32")
            signature[name] = "*" + (SHORT.get(dtype) or dtype.replace("int", "i"))
            attributes[(number,)] = [["tt.divisibility", 16]]
    return triton.compile(ASTSource(kernel, signature, constants, attributes), target=target, options=options)


def needs(compiled: Any) -> dict[str, int]:
    """Registers per thread, spills, bytes of shared memory, matrix and asynchronous instructions."""
    program = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        usage, code = (
            subprocess.run([program, option, file], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers = re.search(r"REG:(\d+)", usage)
    assert registers is not None
    return {
        "registers": int(registers[1]),
        "spilled": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "shared": compiled.metadata.shared,
        "matrix": len(re.findall(r"\b(?:HG?MMA|UTC[A-Z]*MMA)\b", code)),
        "asynchronous": len(re.findall(r"\bLDGSTS\.E\.BYPASS(?:\.LTC128B)?\.128", code)),
    }


def main() -> None:
    capability = int(sys.argv[1])
    target = GPUTarget("cuda", capability, 32)
    chosen = {**tables(), **products()}
    if len(sys.argv) > 2:
        chosen = {name: entry for name, entry in chosen.items() if re.search(sys.argv[2], name)}
    print(json.dumps({name: needs(compile_kernel(*entry, target)) for name, entry in chosen.items()}))


if __name__ == "__main__":
    main()
