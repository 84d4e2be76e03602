"""Who may read what this process writes: its user and its group, however it was started.

Files come to be in a dozen places, some of them inside SQLite, and a mode at each would be missing
at the next. A umask takes away from all of them: folders are 0750, files 0640, and a bell, which
others of the group ring, is given 0660. One that is stricter is widened to that: an engine or an
auditor that runs as another user of the group must be able to read models and database.
"""

import os
from typing import Final

UMASK: Final = 0o027


def keep_others_out() -> None:
    """Set the umask of this process; the first thing that one does."""
    os.umask(UMASK)


def let_others_read() -> None:
    """Let every user read what is made from now on: programs, which are no secret."""
    os.umask(0o022)
