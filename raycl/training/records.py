"""What a finished run leaves for people in the folder of its towers, beside what the next stages read."""

from __future__ import annotations

from raycl.storage.versions import Draft
from raycl.tracking import events, lines, tensorboard

TRACK_FILE = "track.jsonl"


def leave(draft: Draft) -> None:
    """Write the curves as JSON lines and as one event file of TensorBoard."""
    told = lines.read(draft.store, lines.PATH)
    draft.store.write(TRACK_FILE, events.to_lines(told))
    tensorboard.write_whole(draft.store, told)
