"""Command line: a verb a file. ``smalti --help`` imports no torch: verbs import what they need when they run."""

import os


def main() -> None:
    """Runs the command line on the arguments of the process."""
    # Threads of torch (of GNU OpenMP) that wait for each other soon go to sleep: left to spin they take the cores from
    # whoever else is at work, and a busy machine becomes several times slower. To be said before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from smalti.cli._output import prepare_streams, run_and_exit

    prepare_streams()
    from smalti.cli._app import app

    run_and_exit(lambda: app(prog_name="smalti"))
