"""Every quantity that the originals log is logged, under the name that ``docs/logging.md`` gives."""

import json
import re
from pathlib import Path

import pytest
import torch

from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.engine.logging import to_host

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"

# spec/latent_diffusion.md 2.4 and 2.5: LPIPSWithDiscriminator, VQLPIPSWithDiscriminator, and the two training loops.
KL = {"total_loss", "logvar", "kl_loss", "nll_loss", "rec_loss", "d_weight", "disc_factor", "g_loss"}
VQ = {"total_loss", "quant_loss", "rec_loss", "p_loss", "d_weight", "disc_factor", "g_loss"}
BOTH = {"disc_loss", "logits_real", "logits_fake", "aeloss", "discloss"}
CODES = {"perplexity", "cluster_usage"}


def table() -> dict[str, tuple[list[str], list[str]]]:
    """Original name -> our names in the KL recipe and in the VQ recipe."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in PAGE.read_text().partition("## Names of the originals")[2].splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): (re.findall(r"`(.+?)`", row[1]), re.findall(r"`(.+?)`", row[2])) for row in rows}


@pytest.mark.parametrize(("recipe", "column", "originals"), [("vae-kl-f8", 0, KL), ("vqgan-f16", 1, VQ | CODES)])
def test_what_the_originals_log_is_logged(tmp_path: Path, recipe: str, column: int, originals: set[str]) -> None:
    start = [f"objective.{player}.adversarial.start=0" for player in ("generator", "discriminator")]
    small = ["model.encoder.channels=32", "model.decoder.channels=32", "data.transform.size=32", "data.batch_size=1"]
    overrides = ["engine.max_steps=1", "engine.sample_every=0", "validation=null", *start, *small]
    assemble(load_recipe(f"tiny-{recipe}", overrides), tmp_path / "run", quiet=True).run()
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    ours = {original: names[column] for original, names in table().items()}
    assert {original for original, names in ours.items() if names} >= originals | BOTH
    missing = [name for names in ours.values() for name in names if not isinstance(record.get(name), (int, float))]
    assert missing == []


def test_scalars_of_two_devices_are_read_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU cannot stack them: what is measured of the loader's images lies on the CPU, losses on the device."""
    stack, stacked = torch.stack, []

    def of_one_device(tensors: list[torch.Tensor]) -> torch.Tensor:
        stacked.append({tensor.device.type for tensor in tensors})
        return torch.full((len(tensors),), 7.0) if tensors[0].is_meta else stack(tensors)

    monkeypatch.setattr(torch, "stack", of_one_device)
    here, there = torch.tensor(3.0), torch.zeros((), device="meta")
    assert to_host({"loss": there, "image": here, "weight": 2, "norm": there}) == {
        "loss": 7.0,
        "image": 3.0,
        "weight": 2.0,
        "norm": 7.0,
    }
    assert stacked == [{"meta"}, {"cpu"}]
