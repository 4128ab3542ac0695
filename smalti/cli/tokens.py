"""``smalti tokens``: what a token store is, whether it is whole, and how its codes are used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.registry import UserError
from smalti.writing import printable, to_json

if TYPE_CHECKING:
    from smalti.tokens.store import TokenStore

MOST_COUNTED = 2**24
"""Codes of a codebook whose use is counted: 128 MiB of counts."""


def tokens(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a token store.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Read every file and verify its SHA-256.")] = False,
    usage: Annotated[bool, typer.Option(help="Count how often each code is used; reads all tokens once.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Describe a token store, and check it.

    Prints its tokenizer, codebooks, grid and size, and how many codes are used. With --check, damaged files are listed
    and the exit code is 2.

    Example: smalti tokens tokens --check
    """
    from smalti.tokens.store import TokenStore

    opened = TokenStore.open(store)
    problems = opened.verify() if check else []
    if problems:
        raise UserError("; ".join(problems))
    told = {**facts(opened), "usage": usage_of(opened) if usage else None, "checked": check}
    if as_json:
        typer.echo(to_json(told))
        return
    _show(told)


def facts(store: "TokenStore") -> dict[str, Any]:
    """What a store says of itself, as plain values."""
    from dataclasses import asdict

    told = asdict(store.description)
    shards = told.pop("shards")
    sizes = [path.stat().st_size for path in store.folder.rglob("*") if path.is_file()]
    grids = [list(grid) for grid in store.grids]
    return {**told, "grids": grids, "shards": len(shards), "bytes": sum(sizes)}


def usage_of(store: "TokenStore") -> dict[str, Any]:
    """Codebook -> ``usage``, the fraction of codes chosen at all, ``perplexity`` and ``tokens``, over all views.

    Of a codebook of more than 2^24 codes only the number of tokens.
    """
    import numpy as np
    import torch

    from smalti.metrics._codes import entropy
    from smalti.tokens.layout import INDICES

    sizes = store.codebooks
    counts = {name: np.zeros(size, np.int64) for name, size in sizes.items() if size <= MOST_COUNTED}
    total = 0
    for block in store.blocks() if sizes else ():
        indices = block[INDICES]
        store.check_codes(indices)
        total += indices[:, 0].size
        for group, (name, size) in enumerate(sizes.items()):
            if name in counts:
                counts[name] += np.bincount(indices[:, group].reshape(-1), minlength=size)
    found: dict[str, Any] = {}
    for name, size in sizes.items():
        found[name] = {"size": size, "tokens": total, "usage": None, "perplexity": None}
        if name in counts:
            perplexity = float(2.0 ** entropy(torch.from_numpy(counts[name])))
            found[name] |= {"usage": float((counts[name] > 0).mean()), "perplexity": perplexity}
    return found


def _show(told: dict[str, Any]) -> None:
    grids = ", ".join(f"{height} x {width}" for height, width in told["grids"][:4])
    more = f", ... ({len(told['grids'])} grids)" if len(told["grids"]) > 4 else ""
    kind = "tokens" if told["codebooks"] else f"{', '.join(told['arrays'])} ({told['channels']} channels)"
    how = "packed" if told["bits"] else "smallest integer type" if told["codebooks"] else told["float_type"]
    rows = {
        "images": f"{told['count']:,}" + (f" ({told['left_out']:,} could not be read)" if told["left_out"] else ""),
        "views": ", ".join(told["views"]),
        "content": f"{kind}, {how}",
        "grid": grids + more,
        "factor": told["factor"],
        "columns": ", ".join(f"{name} ({kind})" for name, kind in told["columns"].items()) or "none",
        "tokenizer": f"{told['tokenizer']['path']} (weights {told['tokenizer']['hash'][:16]})",
        "data": told["data"]["source"],
        "size": f"{told['bytes'] / 2**20:,.1f} MiB in {told['shards']:,} shard{'s' if told['shards'] != 1 else ''}",
        "checked": "all files match their SHA-256" if told["checked"] else "no (--check)",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        typer.echo(f"{name:{width}}  {printable(text)}")
    if told["usage"]:
        _show_usage(told["usage"])


def _show_usage(usage: dict[str, Any]) -> None:
    width = max(len("codebook"), *(len(name) for name in usage))
    typer.echo(f"\n{'codebook':{width}}  {'codes':>12}  {'used':>8}  {'perplexity':>12}")
    for name, row in usage.items():
        used = "-" if row["usage"] is None else f"{row['usage']:.2%}"
        perplexity = "-" if row["perplexity"] is None else f"{row['perplexity']:,.1f}"
        typer.echo(f"{name:{width}}  {row['size']:>12,}  {used:>8}  {perplexity:>12}")
