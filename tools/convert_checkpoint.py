"""Convert AD-L-JEPA checkpoints of the released code to ours and back.

python tools/convert_checkpoint.py checkpoint_epoch_30.pth ad_l_jepa_kitti.safetensors --model ad_l_jepa_kitti
python tools/convert_checkpoint.py work_dirs/run/weights.safetensors released.pth --model ad_l_jepa_kitti --to ad_l_jepa
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", required=True, help="zoo name or config of the model the weights are for")
    parser.add_argument("--to", choices=["adperception", "ad_l_jepa"], default="adperception")
    parser.add_argument("--global-step", type=int, default=0, help="optimizer steps to note, with --to ad_l_jepa")
    arguments = parser.parse_args()
    try:
        print(_convert(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _convert(arguments: argparse.Namespace) -> str:
    import torch

    from adperception.checkpoint.convert_ad_l_jepa import from_ad_l_jepa, kernel_layout, to_ad_l_jepa, to_krsc
    from adperception.checkpoint.legacy_pickle import read_pickled_checkpoint
    from adperception.checkpoint.save import write_tensors
    from adperception.zoo import create_model, load_model_config

    if arguments.target.exists():
        raise ValueError(f"{arguments.target} exists already. Name another file, or remove it first.")
    if arguments.to == "ad_l_jepa":
        model = create_model(arguments.model, arguments.source)
        torch.save({"model_state": to_ad_l_jepa(model.state_dict(), arguments.global_step)}, arguments.target)
        return f"wrote {arguments.target}: 168 tensors, kernel layout KRSC"

    content = read_pickled_checkpoint(arguments.source)
    state = content.get("model_state", content)
    layout = kernel_layout(state)
    converted, step = from_ad_l_jepa(to_krsc(state))
    model = create_model(arguments.model)
    try:
        model.load_state_dict(converted, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{arguments.source} does not fit {arguments.model}: {error}") from error
    config = load_model_config(arguments.model).values["model"]
    metadata = {"model_config": config, "kernel_layout": "KRSC", "converted_from": "ad_l_jepa", "step": step}
    write_tensors(arguments.target, model.state_dict(), metadata)
    return f"wrote {arguments.target}: {len(converted)} tensors, kernel layout {layout} -> KRSC, step {step}"


if __name__ == "__main__":
    sys.exit(main())
