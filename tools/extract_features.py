"""Write the BEV map of every point cloud below a folder.

Usage: python tools/extract_features.py --model ad_l_jepa_small --checkpoint work_dirs/.../checkpoints/step_... \
           --input clouds/ --out features/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run the command line; returns 0 if every cloud has its map, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="name of a zoo model, or path of a config")
    parser.add_argument("--checkpoint", required=True, type=Path, help="checkpoint folder or .safetensors file")
    parser.add_argument("--input", required=True, type=Path, help="folder with .bin, .npy, .pcd files")
    parser.add_argument("--out", required=True, type=Path, help="where to write")
    parser.add_argument("--format", choices=["npy", "safetensors"], default="npy")
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32", help="of the written values")
    parser.add_argument("--channels", nargs="+", default=["x", "y", "z", "intensity"], help="what the files hold")
    parser.add_argument("--intensity-max", type=float, default=1.0, help="largest intensity in the files, e.g. 255")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    options = parser.parse_args()
    try:
        return _extract(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _extract(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds, and --help should not.
    import torch
    from tqdm import tqdm

    from adperception.datasets.folder import Folder
    from adperception.engine.feature_extraction import extract_features
    from adperception.zoo import create_model

    clouds = Folder(options.input, channels=options.channels, intensity_max=options.intensity_max)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU. python tools/doctor.py says why; --device cpu works here.")
    model = create_model(options.model, options.checkpoint).to(device).eval()
    with tqdm(total=len(clouds), unit="cloud") as bar:

        def progress(name: str, notes: tuple[str, ...]) -> None:
            for note in notes:
                bar.write(f"{name}: {note}", file=sys.stderr)
            bar.update()

        done = extract_features(
            model, clouds, options.out, file_format=options.format, precision=options.precision, progress=progress
        )
    for name, reason in done.failures.items():
        print(f"no map for {name}: {reason}", file=sys.stderr)
    print(f"{len(done.written)} of {len(clouds)} maps written to {options.out}")
    return 1 if done.failures else 0


if __name__ == "__main__":
    sys.exit(main())
