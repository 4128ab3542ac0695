"""Command line: a verb a file. ``smalti --help`` imports no torch: verbs import what they need when they run."""

import os


def main() -> None:
    """Runs the command line on the arguments of the process."""
    # Threads of torch that wait for each other sleep: spinning, they take the cores from whoever else is at work, and
    # a busy machine becomes three times slower. It must be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from smalti.cli._app import app

    app(prog_name="smalti")
