"""`hal0 completion`: the script with which a shell completes commands, options and names."""

import sys

import click

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print what makes a shell complete hal0's commands.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script with which a shell completes commands, options and names.

    Names of slots, models, jobs, engines and tokens are those that the API knows; while it is away
    nothing is offered.

    \b
    bash:  eval "$(hal0 completion bash)"      in ~/.bashrc
    zsh:   eval "$(hal0 completion zsh)"       in ~/.zshrc, behind compinit
    fish:  hal0 completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from hal0.cli import hal0

    kind = get_completion_class(shell)
    assert kind is not None
    sys.stdout.write(kind(hal0, {}, "hal0", "_HAL0_COMPLETE").source())
