"""`completion`: lets a shell complete commands, options and names of the configuration.

The names in the configuration are in completed_names.py.
"""

import os
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

_PROGRAM: Final = "tailchat-gate"
#: The variable that the scripts set for the program to complete; click's own name for it.
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

#: Click's own script finds the program only in $PATH, needs compinit before it, and completes no
#: file after `--config=`.
_ZSH: Final = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a answer names described
    local kind name description
    answer=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \\
        %(complete_var)s=zsh_complete ${(Q)~words[1]} 2>/dev/null)}")
    for kind name description in "${answer[@]}"; do
        case $kind in
        plain)
            if [[ $description == _ ]]; then
                names+=("$name")
            else
                described+=("$name:$description")
            fi
            ;;
        dir) compset -P '*='; _path_files -/ ;;
        file) compset -P '*='; _path_files -f ;;
        esac
    done
    if (( $#described )); then _describe -V unsorted described -U; fi
    if (( $#names )); then compadd -U -V unsorted -a names; fi
}

(( $+functions[compdef] )) || { autoload -U compinit && compinit -i; }
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


@add_completion_class
class _Bash(BashComplete):
    """Completion in bash, which splits words at colons, although the gate's names have colons."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one at it."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        if not line[-1:].isspace() and words:
            return words[:-1], words[-1]
        return words, ""

    def complete(self) -> str:
        """Return the completions, one on each line; bash completes files itself."""
        items = self.get_completions(*self.get_completion_args())
        return "\n".join(self.format_completion(item) for item in items if item.type == "plain")

    def format_completion(self, item: CompletionItem) -> str:
        """Return the part of a completion after the last colon: bash replaces only that part."""
        _, word = self.get_completion_args()
        if ":" in os.environ.get("COMP_BREAKS", ""):
            return str(item.value).removeprefix(word[: word.rfind(":") + 1])
        return str(item.value)


@add_completion_class
class _Zsh(ZshComplete):
    """Completion in zsh."""

    source_template = _ZSH


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets SHELL complete commands, options and names of the configuration.

    \b
    bash, in ~/.bashrc:    eval "$(tailchat-gate completion bash)"
    zsh, in ~/.zshrc:      eval "$(tailchat-gate completion zsh)"
    fish, in config.fish:  tailchat-gate completion fish | source
    """  # noqa: D301 - \b is click's mark for a paragraph that it must not wrap
    shell_class = get_completion_class(shell)
    if shell_class is not None:
        program = context.find_root().command
        click.echo(shell_class(program, {}, _PROGRAM, VARIABLE).source())
