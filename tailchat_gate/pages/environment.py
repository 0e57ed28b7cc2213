"""The environment of the templates of this package."""

from collections.abc import Callable, Mapping

from jinja2 import DictLoader, Environment, StrictUndefined

from tailchat_gate.pages.catalogues import names, switch_links
from tailchat_gate.pages.filters import counted, fill, shorten, utc, visible


def make_environment(
    sources: Mapping[str, str], variables: Mapping[str, object], **filters: Callable[..., str]
) -> Environment:
    """Return an environment for the templates in `sources`, with further variables and filters."""
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(names=names(), switch_links=switch_links, **variables)
    environment.filters.update(
        counted=counted, fill=fill, shorten=shorten, visible=visible, utc=utc, **filters
    )
    return environment
