"""`python -m tests.power.half_synced MODULE ARGS…`: a process of hal0 that spares its FULL syncs.

The power-loss test must notice that such a hal0 loses what it told; nothing else uses this.
"""

import runpy
import sys

import hal0.db


def main() -> None:
    """Run the module with `synchronous=NORMAL` in place of FULL."""
    hal0.db._FULL = "NORMAL"
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
