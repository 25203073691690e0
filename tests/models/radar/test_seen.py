from __future__ import annotations

import copy

import torch

from adperception.models.radar.seen import Seen


def test_a_buffer_is_new_once_and_after_each_change() -> None:
    seen, buffer = Seen(), torch.zeros(3)
    assert [seen.is_new(buffer) for _ in range(3)] == [True, False, False]
    buffer.copy_(torch.ones(3))  # as loading weights and taking statistics do
    assert [seen.is_new(buffer), seen.is_new(buffer)] == [True, False]
    assert seen.is_new(buffer.clone())
    assert copy.deepcopy(seen).is_new(torch.zeros(3))


def test_what_does_not_count_its_changes_is_always_new() -> None:
    seen = Seen()
    with torch.inference_mode():
        buffer = torch.zeros(3)
    assert seen.is_new(buffer)
    assert seen.is_new(buffer)
