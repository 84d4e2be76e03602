"""`python -m workers`."""

import gc
import sys


def main() -> int:
    """Run a worker until it is told to stop; exit code 1 when it cannot start."""
    gc.disable()  # what is imported stays: to search it for garbage is in vain
    from workers import process

    gc.enable()
    return process.main()


if __name__ == "__main__":
    sys.exit(main())
