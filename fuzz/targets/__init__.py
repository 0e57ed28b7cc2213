"""The targets: one module a parser, or a few that read the same bytes."""
