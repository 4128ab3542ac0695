"""A sampler of FAR as FQGAN's authors write theirs (Bai et al., arXiv:2411.16681): plain, and with its waste.

Key-value caches have the length of the whole sequence, and attention goes over all of it under a boolean mask, one row
of which is copied for each sample. The head's caches are of that length too, and made anew for every position. The
batch is doubled for guidance, and outputs grow by concatenation. It takes the weights of one of our models.
"""

import torch
import torch.nn.functional as F


def norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(torch.mean(wide * wide, dim=-1, keepdim=True) + 1e-5)).type_as(x) * weight


def rotate(x, table):
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    table = table.view(1, pairs.size(1), 1, pairs.size(3), 2)
    turned = torch.stack(
        [
            pairs[..., 0] * table[..., 0] - pairs[..., 1] * table[..., 1],
            pairs[..., 1] * table[..., 0] + pairs[..., 0] * table[..., 1],
        ],
        dim=-1,
    )
    return turned.flatten(3).type_as(x)


class Cache:
    def __init__(self, batch, length, heads, width, like):
        self.keys = torch.zeros(batch, heads, length, width, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)

    def update(self, places, keys, values):
        self.keys[:, :, places] = keys
        self.values[:, :, places] = values
        return self.keys, self.values


def attention(part, x, table, places, mask, cache):
    batch, length, width = x.shape
    shared = part.kv_heads * part.head_width
    q, k, v = part.qkv(x).split([width, shared, shared], dim=-1)
    q = rotate(q.view(batch, length, part.heads, part.head_width), table)
    k = rotate(k.view(batch, length, part.kv_heads, part.head_width), table)
    v = v.view(batch, length, part.kv_heads, part.head_width)
    q, k, v = (value.transpose(1, 2) for value in (q, k, v))
    keys, values = cache.update(places, k, v)
    keys = keys.repeat_interleave(part.heads // part.kv_heads, dim=1)
    values = values.repeat_interleave(part.heads // part.kv_heads, dim=1)
    made = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    return part.out(made.transpose(1, 2).contiguous().view(batch, length, width))


def block(part, x, table, places, mask, cache):
    x = x + attention(part.attention, norm(x, part.norm1.weight), table, places, mask, cache)
    y = norm(x, part.norm2.weight)
    return x + part.mlp.down(F.silu(part.mlp.gate(y)) * part.mlp.up(y))


def caches(blocks, batch, length, like):
    return [Cache(batch, length, part.attention.kv_heads, part.attention.head_width, like) for part in blocks]


def guided(scores, scale):
    told, nothing = scores.chunk(2)
    return nothing + (told - nothing) * scale


@torch.no_grad()
def sample(model, classes, scale):
    """The best tokens (B, G, h w) of a FAR with classes (B,), guided by ``scale``."""
    positions, codebooks = model.positions, len(model.outputs)
    batch = 2 * len(classes)
    length = -(-(positions + 1) // 8) * 8
    like = model.norm.weight
    trunk = caches(model.blocks, batch, length, like)
    masks = torch.tril(torch.ones(length, length, dtype=torch.bool, device=like.device)).unsqueeze(0)
    masks = masks.repeat(batch, 1, 1)
    table, head_table = model.table(like.device), model.head_table(like.device)
    both = torch.cat([classes, torch.full_like(classes, model.num_classes)])
    x = model.condition.table(both)[:, None]
    outputs = [[] for _ in range(codebooks)]
    for position in range(positions):
        places = torch.tensor([position], device=like.device)
        mask = masks[:, None, places]
        for part, cache in zip(model.blocks, trunk, strict=True):
            x = block(part, x, table[places], places, mask, cache)
        codes = []
        head = caches(model.head, batch, length, like)
        for number in range(codebooks):
            places = torch.tensor([number], device=like.device)
            mask = masks[:, None, places]
            for part, cache in zip(model.head, head, strict=True):
                x = block(part, x, head_table[places], places, mask, cache)
            scores = guided(model.outputs[number](norm(x, model.norm.weight))[:, -1], scale)
            code = scores.argmax(dim=-1, keepdim=True)
            codes.append(torch.cat([code, code]))
            outputs[number].append(code)
            x = model.embeddings[number](codes[-1])
        x = [embedding(code) for embedding, code in zip(model.embeddings, codes, strict=True)]
        x = model.aggregation(torch.cat(x, dim=-1))
    return torch.stack([torch.cat(plane, dim=1) for plane in outputs], dim=1)
