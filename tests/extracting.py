"""The files of a disc image, as somebody copies them from it."""

from __future__ import annotations

import shutil
from pathlib import Path

from media.trees import open_tree


def extracted(image: Path, folder: Path) -> Path:
    """The folder, with everything that is in the image."""
    with open_tree(image) as tree:
        for name in tree.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with tree.open(name) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
    return folder
