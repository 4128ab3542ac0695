"""The application: its verbs, and the one place where an error of the user becomes a message."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from smalti.cli._defence import DEBUG, defended, is_out_of_memory, memory_message, take_any_name, tell
from smalti.cli.app import app as playground
from smalti.cli.bench import bench
from smalti.cli.compare import compare
from smalti.cli.convert import convert
from smalti.cli.detokenize import detokenize
from smalti.cli.doctor import doctor
from smalti.cli.encode import encode
from smalti.cli.evaluate import evaluate
from smalti.cli.latent_stats import latent_stats
from smalti.cli.protocols import protocols
from smalti.cli.recipes import recipes
from smalti.cli.reconstruct import reconstruct
from smalti.cli.report import report
from smalti.cli.sample import sample
from smalti.cli.tokenize import tokenize
from smalti.cli.tokens import tokens
from smalti.cli.train import train
from smalti.config.places import local, to_write
from smalti.registry import UserError

USER_ERROR = 2


class Verbs(TyperGroup):
    """A group of verbs that shows what the user can mend as one message on stderr, with exit code 2.

    What nobody foresaw is one message, too, with the path of a file that holds its traceback, and exit code 3. With
    ``SMALTI_DEBUG=1`` every error keeps its traceback.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command line."""
        take_any_name()
        words = kwargs.pop("args", None)
        given = list(sys.argv[1:] if words is None else words)
        with defended(given):
            return super().main([in_home(word) for word in given], *args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Runs a verb."""
        try:
            check_out([*ctx._protected_args, *ctx.args])
            return super().invoke(ctx)
        except Exception as error:
            if os.environ.get(DEBUG) == "1":
                raise
            if is_user_error(error):
                tell(f"error: {message_of(error)}")
            elif is_out_of_memory(error):
                tell(f"error: {memory_message(error, self.get_command(ctx, ctx.invoked_subcommand or ''))}")
            else:
                raise
            raise typer.Exit(USER_ERROR) from error


def in_home(word: str) -> str:
    """A word of the command line; ``--out=~/runs`` means what ``--out ~/runs`` does, which the shell sees to itself.

    >>> in_home("--out=runs"), in_home("--set=model.init=~/base")
    ('--out=runs', '--set=model.init=~/base')
    """
    option, equals, value = word.partition("=")
    if not (option.startswith("--") and equals and value.startswith("~")):
        option, equals, value = "", "", word
    return f"{option}{equals}{local(value)}" if value.startswith("~") else word


def check_out(words: Sequence[str]) -> None:
    """Refuses an address after ``--out``, before anything is read.

    Raises:
        UserError: naming it.
    """
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        if option == "--out":
            to_write(value if equals else following)


def is_user_error(error: Exception) -> bool:
    """Whether the user can mend it: a recipe, a path, a file, a full disk; a closed pipe is nobody's error."""
    from safetensors import SafetensorError

    if isinstance(error, OSError):
        return error.errno != errno.EPIPE
    return isinstance(error, (UserError, SafetensorError))


def message_of(error: Exception) -> str:
    """What is shown for it; an operating system error says which file.

    >>> message_of(FileNotFoundError(2, "No such file or directory", "cat.png"))
    'cat.png: No such file or directory'
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


app = typer.Typer(
    cls=Verbs,
    name="smalti",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(evaluate)
app.command()(compare)
app.command()(reconstruct)
app.command()(encode)
app.command()(tokenize)
app.command()(detokenize)
app.command()(tokens)
app.command()(convert)
app.command("latent-stats")(latent_stats)
app.command()(sample)
app.command()(report)
app.command()(doctor)
app.command("app")(playground)
app.add_typer(recipes, name="recipes")
app.add_typer(protocols, name="protocols")
app.add_typer(bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        from smalti import __version__

        typer.echo(__version__)
        raise typer.Exit


FIRST = """smalti trains, measures and uses image autoencoders, visual tokenizers and GANs.

First commands:
  smalti train quickstart                               train a small tokenizer on packaged photos, about a minute
  smalti evaluate runs/quickstart --data PHOTOS         PSNR, SSIM and codebook usage on your images
  smalti reconstruct runs/quickstart CAT.PNG --out OUT  reconstruct a picture
  smalti tokenize runs/quickstart --data PHOTOS --size 256 --out STORE
  smalti report runs/quickstart                         write the HTML report of a run

More:
  smalti recipes list          all models that can be trained
  smalti --help                all commands
  smalti COMMAND --help        options and an example of one command
  smalti --install-completion  let the shell complete commands, options and recipes"""


@app.callback()
def smalti(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, measure and use image autoencoders, visual tokenizers and GANs.

    Example: smalti train quickstart --out runs/quickstart
    """
    if context.invoked_subcommand is None:
        typer.echo(FIRST)
