"""How an advice that rows keep for every slot alike is told for one: `hal0 slot load SLOT`."""

import re
from typing import Final

COMMAND: Final = re.compile(r"`hal0 [^`]*`")


def with_names(text: str, slot: str, job_id: int | None) -> str:
    """Return an advice with the slot and the id of its job where its commands say `SLOT`, `ID`."""
    named = {"SLOT": slot, "ID": str(job_id)}
    return COMMAND.sub(
        lambda command: re.sub(r"\b(SLOT|ID)\b", lambda word: named[word[0]], command[0]), text
    )
