"""What is used of ``huggingface_hub``, imported without its remark on bars that a notebook lacks widgets for."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

__all__ = [
    "EntryNotFoundError",
    "HFValidationError",
    "HfHubHTTPError",
    "OfflineModeIsEnabled",
    "PyTorchModelHubMixin",
    "hf_hub_download",
]
