"""Models that can be saved, shared on the Hugging Face Hub, and loaded again."""

from pathlib import Path
from typing import Any, Self

from smalti.config.places import local, to_write
from smalti.models import Model
from smalti.models._checkpoint import find_checkpoint
from smalti.models._hub import PyTorchModelHubMixin
from smalti.models._pretrained import CONFIG, WEIGHTS, fetch, load_model, save_model


class SavedModel(Model, PyTorchModelHubMixin, library_name="smalti"):
    """Base of the models that ``smalti.load`` reads; ``SavedModel.from_pretrained`` itself loads any of them."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Writes ``config.json`` and ``model.safetensors``.

        Args:
            save_directory: a local folder, made if it is not there; ``~`` is the home folder.
            options: those of ``huggingface_hub.PyTorchModelHubMixin``, such as ``push_to_hub=True, repo_id=...``.

        Returns:
            The address of the repository if it was pushed.

        Raises:
            UserError: for an address in place of a folder.
        """
        return super().save_pretrained(to_write(save_directory), **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no model_kwargs: the saved configuration is complete
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        trust_code: bool = False,
        map_location: str = "cpu",
    ) -> Self:
        """Loads what ``save_pretrained`` or ``push_to_hub`` wrote, in evaluation mode and in the dtype it was saved in.

        Args:
            pretrained_model_name_or_path: a folder, a checkpoint of a run (``RUN@best``, ``RUN@400``), or a repository
                ``owner/name`` on the Hugging Face Hub.
            force_download: download even if the cache has it.
            token: of the Hub.
            cache_dir: of the Hub's downloads.
            local_files_only: use the cache only.
            revision: branch, tag or commit on the Hub.
            trust_code: whether the configuration may name classes outside smalti, whose import runs their code.
            map_location: device to load to.

        Raises:
            UserError: naming the file that is missing, damaged, or does not fit.
        """
        source = str(local(pretrained_model_name_or_path))
        checkpoint = find_checkpoint(source)
        if checkpoint is not None:
            return checkpoint.build(cls, trust_code=trust_code, map_location=map_location)
        options = {
            "force_download": force_download,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        config, weights = (fetch(source, name, options) for name in (CONFIG, WEIGHTS))
        return load_model(cls, config, weights, trust_code=trust_code, map_location=map_location)
