"""A worker that believes every file: what hal0 would be without preload validation (ADR-0007).

It is for the show alone. Nothing in hal0 switches validation off.
"""

import sys
from collections.abc import Sequence
from typing import Any

from hal0.jobs import validate
from hal0.registry.files import FileIdentity
from hal0.registry.preload import CheckedFile, ModelFile
from workers.process import main


def believe(files: Sequence[ModelFile], **_how: Any) -> list[CheckedFile]:
    """Find every file fit to load, unread."""
    return [
        CheckedFile(
            file,
            FileIdentity.from_stat(file.path.stat()),
            sha256=None,
            is_remembered=False,
            skipped=("size", "header", "checksum"),
        )
        for file in files
    ]


if __name__ == "__main__":
    vars(validate)["validate_files"] = believe
    sys.exit(main())
