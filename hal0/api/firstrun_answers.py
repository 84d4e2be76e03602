"""What an answer says of a first run; shapes as in `answers.py`, most of them the room's own."""

from hal0.api.answers import Instant
from hal0.firstrun.finding import FoundEngine
from hal0.firstrun.offers import Look, Offer
from hal0.firstrun.probe import Disk, Machine

__all__ = ["Look", "Offer", "Probe"]


class Probe(Machine, closed=True):
    """What was found of the machine that the API is on, and when."""

    id: int
    at: Instant
    disk: Disk
    engines: list[FoundEngine]
