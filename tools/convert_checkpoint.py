"""Convert checkpoints of OpenPCDet, mmdetection3d, the AD-L-JEPA and the MVRSS release to ours and back.

python tools/convert_checkpoint.py --from openpcdet second.pth --model second_kitti
python tools/convert_checkpoint.py --from mvrss model.pt --model tmva_net_carrada
python tools/convert_checkpoint.py --to openpcdet work_dirs/second_kitti/weights.safetensors second.pth

Without --model a converted file holds the tensors only: enough to start a detector from its encoder, not to build a
model from. See docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adperception.checkpoint.convert import Converted

_LIBRARIES = ["openpcdet", "mmdetection3d", "ad_l_jepa", "mvrss"]


def main(options: Sequence[str] | None = None) -> int:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, nargs="?", help="default: beside the source, with another suffix")
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument("--from", dest="from_library", choices=_LIBRARIES, help="default: seen from tensor names")
    direction.add_argument("--to", dest="to_library", choices=_LIBRARIES, help="convert one of our files")
    parser.add_argument("--model", help="zoo name or config of the model that the weights are for")
    parser.add_argument("--part", choices=["all", "encoder"], default="all", help="encoder: the sparse 3D encoder only")
    parser.add_argument(
        "--kernel-layout", choices=["KRSC", "RSKC", "RSCK", "conv3d"], help="axes of the other side's sparse kernels"
    )
    parser.add_argument("--verify", type=Path, metavar="PAIR.npz", help="a stored input and output of the encoder")
    parser.add_argument("--write-pair", type=Path, metavar="PAIR.npz", help="write such a pair for the result")
    parser.add_argument("--classes", nargs="+", default=[], help="mmdetection3d: the file's classes in order")
    parser.add_argument("--direction-offset", type=float, help="mmdetection3d: dir_offset of the file's config")
    parser.add_argument("--global-step", type=int, default=0, help="optimizer steps to note, with --to")
    arguments = parser.parse_args(options)
    try:
        print(_to_foreign(arguments) if arguments.to_library else _to_ours(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _to_ours(arguments: argparse.Namespace) -> str:
    from adperception.checkpoint.convert import read_foreign
    from adperception.checkpoint.encoder_check import verify_encoder, write_encoder_check
    from adperception.checkpoint.save import write_tensors
    from adperception.zoo import create_model, load_model_config

    target = _free(arguments.target or arguments.source.with_suffix(".safetensors"))
    encoder_only = arguments.part == "encoder"
    if arguments.model and encoder_only:
        raise ValueError("--part encoder leaves no whole model to check against --model. Give one of the two.")
    model = create_model(arguments.model) if arguments.model else None
    converted = read_foreign(
        arguments.source,
        arguments.from_library,
        kernel_layout=arguments.kernel_layout,
        encoder_only=encoder_only,
        classes=arguments.classes,
        own_classes=getattr(model, "class_names", ()) or arguments.classes,
        direction_offset=arguments.direction_offset,
        own_direction_offset=_direction_offset(model),
    )
    if not converted.encoders and (arguments.verify or arguments.write_pair):
        raise ValueError(f"--verify and --write-pair are about sparse encoders; {converted.library} has none.")
    verified = "" if arguments.verify is None else f"{verify_encoder(arguments.verify, converted.encoder()):.1e}"
    metadata = {
        "kernel_layout": None if converted.layout is None else "KRSC",
        "converted_from": converted.library,
        "step": converted.step,
        "encoders": dict(converted.encoders),
    }
    if model is not None:
        try:
            model.load_state_dict(converted.state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"{arguments.source} does not fit {arguments.model}: {error}") from error
        metadata["model_config"] = load_model_config(arguments.model).values["model"]
        metadata["input_channels"] = getattr(model, "in_channels", None)
    if arguments.write_pair is not None:
        write_encoder_check(_free(arguments.write_pair), converted.encoder())
    write_tensors(target, converted.state, metadata)
    return _summary(target, converted, verified, arguments)


def _summary(target: Path, converted: Converted, verified: str, arguments: argparse.Namespace) -> str:
    if converted.layout is None:
        first = f"wrote {target}: {len(converted.state)} tensors, from {converted.library}"
        return "\n".join([first, *_remarks(converted, arguments)])
    how = "inferred from shapes" if converted.layout_inferred else "as given"
    verdict = "not verified numerically (--verify PAIR.npz does)"
    if verified:
        verdict = f"verified: the encoder's output differs by {verified} of its largest value from the stored one"
    lines = [
        f"wrote {target}: {len(converted.state)} tensors, kernel layout {converted.layout} -> KRSC, "
        f"step {converted.step}",
        f"from {converted.library}; kernel layout {how}, {verdict}",
    ]
    return "\n".join([*lines, *_remarks(converted, arguments)])


def _remarks(converted: Converted, arguments: argparse.Namespace) -> list[str]:
    remarks = [f"note: {note}" for note in converted.notes]
    if arguments.model:
        return remarks
    use = "the file serves load_encoder, but no" if converted.encoders else "no"
    return [f"no --model: {use} model can be built from it alone", *remarks]


def _to_foreign(arguments: argparse.Namespace) -> str:
    from adperception.checkpoint.convert import default_layout, write_foreign
    from adperception.checkpoint.encoder_check import write_encoder_check
    from adperception.zoo import create_model, load_model

    target = _free(arguments.target or arguments.source.with_suffix(".pth"))
    model = create_model(arguments.model, arguments.source) if arguments.model else load_model(arguments.source)
    state = model.state_dict()
    sparse = arguments.to_library != "mvrss"
    layout = arguments.kernel_layout or (default_layout(arguments.to_library) if sparse else None)
    if arguments.write_pair is not None and not model.ENCODERS:
        raise ValueError(f"--write-pair is about sparse encoders; {type(model).__name__} has none.")
    if arguments.write_pair is not None:
        prefix = next(iter(model.ENCODERS.values()))
        encoder = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        write_encoder_check(_free(arguments.write_pair), encoder)
    names = getattr(model, "class_names", ())
    offset = _direction_offset(model)
    count = write_foreign(
        target,
        arguments.to_library,
        state,
        step=arguments.global_step,
        kernel_layout=layout,
        class_names=names,
        direction_offset=offset,
    )
    lines = [f"wrote {target}: {count} tensors" + (f", kernel layout {layout}" if layout else "")]
    if arguments.to_library == "mmdetection3d" and names:
        lines.append(
            f"their config needs classes in the order {', '.join(names)}, our anchor sizes and bottoms, and for an "
            f"anchor head dir_offset={offset:g}, dir_limit_offset=0 and rotations=[0, 1.57]"
        )
    return "\n".join(lines)


def _direction_offset(model: object) -> float:
    """The option of an anchor head; where there is none nobody asks for it."""
    from adperception.models.heads.box_coder import DIRECTION_OFFSET

    return getattr(model, "direction_offset", DIRECTION_OFFSET)


def _free(path: Path) -> Path:
    if path.exists():
        raise ValueError(f"{path} exists already. Name another file, or remove it first.")
    return path


if __name__ == "__main__":
    sys.exit(main())
