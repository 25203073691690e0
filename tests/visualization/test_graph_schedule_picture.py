"""Pictures of schedules: every kind is drawn, the same bytes each time, nothing to draw is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.graph_schedules import CompleteSchedule, GraphSchedule, RingSchedule
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.visualization.graph_schedule_picture import draw_graph_schedule


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("schedule", "members", "rounds"),
    [
        (MATCHASchedule(al_dsgd_graph(0)), tuple(range(8)), range(7)),
        (CompleteSchedule(), tuple(range(40)), [3]),
        (RingSchedule(), (5,), [0]),
    ],
)
def test_drawn(schedule: GraphSchedule, members: tuple[int, ...], rounds: list[int], tmp_path: Path) -> None:
    first = draw_graph_schedule(schedule, members, rounds, tmp_path / "new" / "a.png")
    second = draw_graph_schedule(schedule, members, rounds, tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    image = cv2.imread(str(first))
    assert image is not None
    assert image.std() > 5


def test_an_edge_that_is_active_has_its_matchings_colour(tmp_path: Path) -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0))
    flags = [schedule.at(index, tuple(range(8))).active[3] for index in range(20)]
    vermilion = (0x00, 0x5E, 0xD5)
    for wanted in (True, False):
        path = draw_graph_schedule(schedule, tuple(range(8)), [flags.index(wanted)], tmp_path / f"{wanted}.png")
        image = cv2.imread(str(path))
        assert image is not None
        assert bool((image == vermilion).all(2).any()) == wanted


def test_no_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rounds is empty"):
        draw_graph_schedule(RingSchedule(), (0, 1), [], tmp_path / "a.png")
