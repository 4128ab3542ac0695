"""FAR for three codebooks, of which nothing is recorded: its formulas written out by hand on the original's names."""

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.interop import ImportOptions
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.models.far import FAR
from tests.interop.checkpoints import save

SIZES, SIDE, HEADS = {"visual": 11, "mid": 7, "high": 5}, 3, 2
State = dict[str, Tensor]


def positions(width: int) -> Tensor:
    """Angles of the class, whose row is zeros, and of the cells: half of the pairs for the row, half for the column."""
    frequencies = 10000.0 ** (-torch.arange(0, width // 2, 2, dtype=torch.float64) / (width // 2))
    cells = [torch.cat([row * frequencies, column * frequencies]) for row in range(SIDE) for column in range(SIDE)]
    angles = torch.stack(cells)
    table = torch.complex(angles.cos(), angles.sin())
    return torch.cat([torch.zeros_like(table[:1]), table])


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]


def stack(state: State, name: str, x: Tensor, table: Tensor) -> Tensor:
    for number in range(sum(key.startswith(f"{name}.") and key.endswith(".wo.weight") for key in state)):
        at = f"{name}.{number}"
        batch, length, width = x.shape
        packed = norm(state, f"{at}.attention_norm", x) @ state[f"{at}.attention.wqkv.weight"].T
        q, k, v = (part.view(batch, length, HEADS, -1) for part in packed.chunk(3, dim=-1))
        turned = [torch.view_as_complex(one.reshape(*one.shape[:-1], -1, 2)) * table[:, None] for one in (q, k)]
        q, k = (torch.view_as_real(one).flatten(-2) for one in turned)
        scores = torch.einsum("bihe,bjhe->bhij", q, k) / (width // HEADS) ** 0.5
        later = torch.ones(length, length).triu(1).bool()
        seen = scores.masked_fill(later, float("-inf")).softmax(dim=-1)
        x = x + torch.einsum("bhij,bjhe->bihe", seen, v).flatten(2) @ state[f"{at}.attention.wo.weight"].T
        y = norm(state, f"{at}.ffn_norm", x)
        gate, up, down = (state[f"{at}.feed_forward.{w}.weight"].T for w in ("w1", "w3", "w2"))
        x = x + (F.silu(y @ gate) * (y @ up)) @ down
    return x


def logits(state: State, indices: Tensor, labels: Tensor) -> list[Tensor]:
    """Scores (B, n, K) of each of three codebooks, from indices (B, 3, n)."""
    tables = [state[f"tok_embeddings_{number}.weight"] for number in (1, 2, 3)]
    own = [table[plane] for table, plane in zip(tables, indices.unbind(1), strict=True)]
    joined = F.linear(
        torch.cat(own, dim=-1)[:, :-1], state["aggregation_layer.weight"], state["aggregation_layer.bias"]
    )
    x = torch.cat([state["cls_embedding.embedding_table.weight"][labels][:, None], joined], dim=1)
    table = positions(x.shape[-1] // HEADS)
    x = stack(state, "layers", x, table[: x.shape[1]])
    head = stack(state, "ar_head", torch.stack([x, own[0], own[1]], dim=2).flatten(0, 1), table[:3])
    made = norm(state, "norm", head).unflatten(0, x.shape[:2])
    return [made[:, :, number] @ state[f"output_{number + 1}.weight"].T for number in range(3)]


def test_scores_gradients_and_best_tokens_are_those_of_the_formulas(tmp_path) -> None:
    far = FAR(codebooks=SIZES, grid=(SIDE, SIDE), num_classes=4, width=16, depth=2, head_depth=2, heads=HEADS)
    for parameter in far.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    state = export_state(far, format_named("far")).state
    options = ImportOptions(heads=HEADS, grid=SIDE)
    model = import_checkpoint(save(tmp_path / "far.pt", {}, model=state), options=options).model.double()
    state = {key: value.double().requires_grad_() for key, value in state.items()}
    indices = torch.stack([torch.randint(size, (3, SIDE**2)) for size in SIZES.values()], dim=1)
    labels = torch.tensor([0, 4, 2])  # 4 is no class
    expected = logits(state, indices, labels)
    found = model.training_forward({"indices": indices.unflatten(2, (SIDE, SIDE)), "label": labels}).logits
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one.flatten(1, 2), other, rtol=0, atol=1e-12)
    sum(scores.square().mean() for scores in found.values()).backward()
    sum(scores.square().mean() for scores in expected).backward()
    table = format_named("far").table(format_named("far").layout(()))
    for name, parameter in model.named_parameters():
        key, _ = table.theirs(name)
        torch.testing.assert_close(parameter.grad, state[key].grad, rtol=1e-9, atol=1e-12)

    scales = {"visual": 3.0, "mid": 1.0, "high": 1.5}
    best = torch.zeros(1, 3, SIDE**2, dtype=torch.int64)
    for position in range(SIDE**2):
        for number, scale in enumerate(scales.values()):
            with torch.no_grad():
                told, nothing = logits(state, best.repeat(2, 1, 1), torch.tensor([1, 4]))[number][:, position]
            best[0, number, position] = (nothing + (told - nothing) * scale).argmax()
    drawn = model.sample(torch.tensor([1]), guidance=scales, temperature=0.0)
    assert torch.equal(drawn.flatten(2), best)
