"""`completion`: lets a shell complete commands, options and names of the configuration.

Only the names in the configuration have to be valid.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
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

from tailchat_gate.config.document import Document, parse
from tailchat_gate.config.overlay import CONFIG_ENV, DEFAULT_CONFIG
from tailchat_gate.config.values.identifier import SUB, TOKEN
from tailchat_gate.identity.revocation.state import ALL
from tailchat_gate.syntax import TAILCHAT_ID

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


def routes(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of routes."""
    return _that_begin(begun, _texts(_rows(_document(context), "route"), "name"))


def tokens(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of tokens."""
    return _that_begin(begun, _texts(_rows(_document(context), "token"), "name"))


def persons(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the people in groups and lists of the configuration."""
    return _that_begin(begun, _people(_document(context)))


def people_or_all(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the same people, and the word for everybody."""
    return _that_begin(begun, (ALL, *_people(_document(context))))


def targets(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the people and machines in the configuration, and the word for everybody."""
    document = _document(context)
    machines = (TOKEN + name for name in _texts(_rows(document, "token"), "name"))
    return _that_begin(begun, (ALL, *machines, *_people(document)))


def urls(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the addresses of the routes that have a host."""
    document = _document(context)
    server = document.get("server")
    public = server.get("public_url") if isinstance(server, dict) else ""
    scheme = public.partition(":")[0] if isinstance(public, str) and public else "https"
    found = []
    for row in _rows(document, "route"):
        host, path = row.get("host"), row.get("path", "/")
        if isinstance(host, str) and isinstance(path, str) and "*" not in host:
            found.append(f"{scheme}://{host}{path}")
    return _that_begin(begun, found)


def _document(context: click.Context) -> Document:
    path = context.params.get("config") or os.environ.get(CONFIG_ENV) or DEFAULT_CONFIG
    try:
        return parse(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}


def _rows(document: Document, name: str) -> list[Document]:
    found = document.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _people(document: Document) -> Iterator[str]:
    """Yield the people in groups and in the lists of routes, as `sub:ID`."""
    groups = document.get("groups")
    for members in groups.values() if isinstance(groups, dict) else ():
        listed = members.get("members") if isinstance(members, dict) else members
        yield from (SUB + one for one in _list(listed) if TAILCHAT_ID.fullmatch(one))
    for row in _rows(document, "route"):
        for key in ("allow", "deny"):
            yield from (one for one in _list(row.get(key)) if one.startswith(SUB))


def _list(value: object) -> Iterator[str]:
    return (one for one in (value if isinstance(value, list) else ()) if isinstance(one, str))


def _texts(rows: Iterable[Document], key: str) -> Iterator[str]:
    return (text for row in rows if isinstance(text := row.get(key), str))


def _that_begin(begun: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(begun) and name.isprintable()]


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
        found = self.get_completions(*self.get_completion_args())
        return "\n".join(self.format_completion(item) for item in found if item.type == "plain")

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
    found = get_completion_class(shell)
    if found is not None:
        program = context.find_root().command
        click.echo(found(program, {}, _PROGRAM, VARIABLE).source())
