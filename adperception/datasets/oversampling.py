"""Listing frames with rare classes more than once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["oversampled"]


def oversampled(
    names: Sequence[str],
    classes: Mapping[str, Collection[str]],
    times: Mapping[str, int],
    class_names: Sequence[str],
    dataset: str,
) -> list[str]:
    """Frame names, each as often as the most often listed of its classes asks for.

    Args:
        names: of the frames.
        classes: classes of the objects in a frame; frames without an object may be missing.
        times: class name to how often frames that hold it are listed; other classes count once.
        class_names: the classes that there are.
        dataset: name for messages.

    Raises:
        ValueError: for an unknown class or a number that is not whole and at least 1.
    """
    if set(times) - set(class_names) or any(int(n) != n or n < 1 for n in times.values()):
        raise ValueError(
            f"{dataset}: oversample={dict(times)} must give whole numbers of at least 1 to {', '.join(class_names)}."
        )
    return [n for n in names for _ in range(max((int(times.get(c, 1)) for c in classes.get(n, ())), default=1))]
