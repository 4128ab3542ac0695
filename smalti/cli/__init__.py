"""Command line: a verb a file. ``smalti --help`` imports no torch: verbs import what they need when they run."""


def main() -> None:
    """Runs the command line on the arguments of the process."""
    from smalti.cli._app import app

    app(prog_name="smalti")
