"""Print a config as it will be used: base merged in, overrides applied, names and types checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from adperception.config import format_config, load_config
from adperception.engine.settings import parse_settings


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, arguments.cfg_options)
        settings = parse_settings(config.values)
        from adperception.engine.run import check_names

        check_names(settings)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in config.overrides:
        print(f"# {line}")
    print(format_config(config.values), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
