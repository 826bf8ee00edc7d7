"""The command line's parts: options, errors, output, and the groups of verbs. `remctl.cli` puts them together."""
