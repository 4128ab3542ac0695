"""The server of the playground: this machine only, no analytics, nothing fetched, nothing kept."""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec

from smalti.app.makers import Maker
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

HOST = "127.0.0.1"
MEGABYTES = 20  # of a file that is dropped
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
}


def check_installed() -> None:
    """Raises a UserError if gradio is not installed."""
    if find_spec("gradio") is None:
        raise UserError("the playground needs gradio: pip install 'smalti[app]'")


def serve(
    models: Mapping[str, Autoencoder | Maker],
    *,
    port: int | None = None,
    longest: int = 768,
    show: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serves the playground on this machine until it is interrupted.

    Args:
        models: name -> an autoencoder or what makes images, in evaluation mode.
        port: where; None takes a free one.
        longest: pixels that the longer side of a picture has at most; larger ones are made smaller.
        show: whether to open a browser.
        say: told the address.

    Raises:
        UserError: if gradio is not installed, or the port is taken.
    """
    check_installed()
    os.environ.update(QUIET)  # read when gradio is imported
    with tempfile.TemporaryDirectory(prefix="smalti-app-") as kept:
        os.environ["GRADIO_TEMP_DIR"] = kept  # what is dropped goes when the server ends
        from smalti.app.page import CSS, build, theme

        demo = build(models, longest=longest)
        try:
            _, address, _ = demo.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                inbrowser=show,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=f"{MEGABYTES}mb",
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                theme=theme(),
                css=CSS,
            )
        except OSError as error:
            raise UserError(f"--port {port}: {error}") from error
        say(address)
        with suppress(KeyboardInterrupt):
            demo.block_thread()
        demo.close(verbose=False)
