from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from adperception.engine.claims import claimed

HOLD = """
import sys
from pathlib import Path
from adperception.engine.claims import claimed
with claimed(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    piece = tmp_path / "deep/cell"
    with claimed(piece) as mine:
        assert mine
        with claimed(piece) as second:
            assert not second
        with claimed(tmp_path / "deep/other") as other:
            assert other
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(piece)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "True"
    with claimed(piece) as mine:
        assert not mine
    holder.kill()
    holder.communicate()
    with claimed(piece) as mine:
        assert mine
