"""`completion`: what makes a shell complete commands, options and names of the configuration."""

import os
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

_PROGRAM: Final = "tailchat-gate"
#: Click reads it whenever a shell completes.
VARIABLE: Final = "_TAILCHAT_GATE_COMPLETE"

_BASH: Final = """\
%(complete_func)s() {
    local item
    COMPREPLY=()
    while IFS= read -r item; do
        [[ $item ]] && COMPREPLY+=("$item")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o default -o bashdefault -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class _Bash(BashComplete):
    """Completion in bash, which ends a word at each colon; the gate's names have colons."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one at it."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if not line[-1:].isspace() and words:
            return words[:-1], words[-1]
        return words, ""

    def complete(self) -> str:
        """Return the completions, one a line; none for a file, which bash completes itself."""
        found = self.get_completions(*self.get_completion_args())
        return "\n".join(self.format_completion(item) for item in found if item.type == "plain")

    def format_completion(self, item: CompletionItem) -> str:
        """Return what takes the place of the last part of the word, which is what bash replaces."""
        _, word = self.get_completion_args()
        if ":" in os.environ.get("COMP_BREAKS", ""):
            return str(item.value).removeprefix(word[: word.rfind(":") + 1])
        return str(item.value)


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names of the configuration.

    \b
    bash, in ~/.bashrc:    eval "$(tailchat-gate completion bash)"
    zsh, in ~/.zshrc:      eval "$(tailchat-gate completion zsh)"
    fish, in config.fish:  tailchat-gate completion fish | source
    """  # noqa: D301 - click's own mark is that character
    found = get_completion_class(shell)
    if found is not None:
        program = context.find_root().command
        click.echo(found(program, {}, _PROGRAM, VARIABLE).source())
