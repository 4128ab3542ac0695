"""The same pass on a Ray cluster: Ray Data hands shards to a pool of actors, each of which holds the model.

What a shard holds follows from the plan and the data, so actors write the bytes that processes of torchrun would. The
images and the folder of the store must lie where every machine of the cluster has them.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smalti.registry import UserError
from smalti.tokenizing.job import Job, Share
from smalti.tokenizing.passing import Progress, make_shard, writing
from smalti.tokens.store import TokenStore
from smalti.tokens.writer import StoreWriter

SHARD, WRONG = "shard", "wrong"


def tokenize_on_ray(
    job: Job, out: Path, actors: int, *, resume: bool = False, progress: Progress = lambda done, of: None
) -> TokenStore:
    """Writes the token store of a job with actors of Ray: of the cluster that ``RAY_ADDRESS`` names, else of its own.

    Args:
        job: what; its model travels to the actors, which put it on a GPU if it is on one here.
        out: the folder; new, or with ``resume`` one of the same job.
        actors: how many hold the model.
        resume: whether to go on with what is there.
        progress: told images done and images in all.

    Raises:
        UserError: as for ``tokenize``, or if Ray is not installed.
    """
    ray = _ray()
    device = next(job.model.parameters()).device
    with writing(job, out, resume) as (writer, remaining):
        if remaining:
            with _connected(ray, actors):
                done, of = 0, sum(len(share.items) for share in remaining)
                sizes = {share.number: len(share.items) for share in remaining}
                job.model.to("cpu")
                for number in _made(ray, job, writer, remaining, actors, device.type):
                    done += sizes[number]
                    progress(done, of)
        return writer.finish(len(job.shares), job.names)


def _made(ray: Any, job: Job, writer: StoreWriter, remaining: list[Share], actors: int, device: str) -> Iterator[int]:
    """Numbers of shards as actors finish them."""
    shared = ray.put({"job": job, "writer": writer, "shares": {share.number: share for share in remaining}})
    numbers = [{SHARD: share.number} for share in remaining]
    shards = ray.data.from_items(numbers, override_num_blocks=len(numbers))
    made = shards.map_batches(
        Actor,
        fn_constructor_args=(shared, device),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(numbers))),
        num_gpus=1 if device == "cuda" else None,
    )
    try:
        for row in made.iter_rows():
            if row[WRONG]:
                raise UserError(row[WRONG])
            yield int(row[SHARD])
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray: {str(error).strip().splitlines()[-1]}") from error


class Actor:
    """Holds the model and writes the shards that it is given; Ray makes one in each of its processes.

    Args:
        shared: a reference to the job, its writer and its shards.
        device: kind of device that the model goes to.
    """

    def __init__(self, shared: Any, device: str) -> None:
        told = _ray().get(shared)
        self.job, self.writer, self.shares = told["job"], told["writer"], told["shares"]
        self.job.model.to(device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the shards whose numbers are in ``batch``; beside each what the user did wrong, if anything.

        That travels as a value: Ray would bury it in a traceback.
        """
        wrong = []
        for number in batch[SHARD].tolist():
            try:
                make_shard(self.job, self.writer, self.shares[number])
                wrong.append("")
            except (UserError, OSError) as error:
                wrong.append(str(error))
        return {SHARD: batch[SHARD], WRONG: wrong}


def _ray() -> Any:
    """The library; it reports its use to nobody.

    Raises:
        UserError: if it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'smalti[ray]'") from error
    return ray


@contextmanager
def _connected(ray: Any, actors: int) -> Iterator[None]:
    """Within, Ray runs; one that was started here ends here."""
    if ray.is_initialized():
        yield
        return
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(actors + 1, os.cpu_count() or 1)}
    ray.init(include_dashboard=None if not local else False, log_to_driver=False, logging_level=logging.ERROR, **local)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
