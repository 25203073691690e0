"""Examine this installation: versions, devices, sparse backends, a self-test per device and backend, a verdict.

Usage: python tools/doctor.py [--json] [--seconds S]
The exit code is 0 if everything works, else 1. Attach the output to bug reports.
"""

from __future__ import annotations

import argparse
import sys

from adperception.engine.doctor import diagnose


def main() -> int:
    """Print the report; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each self-test (default: 1)")
    options = parser.parse_args()
    report = diagnose(options.seconds)
    print(report.to_json() if options.json else report.to_text())
    return 0 if report.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
