"""Two processes: one discriminator, two replay buffers, one decision."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import multiprocessing

from tests.losses.seraena.test_corrector import clips, same, settings
from tinyworld.core import dist
from tinyworld.core.errors import TrainingError
from tinyworld.losses.seraena import Seraena


def error_of(work: Any) -> str:
    try:
        work()
    except TrainingError as error:
        return str(error)
    return ""


def train(seraena: Seraena, rank: int) -> list[dict[str, float]]:
    """Each rank sees other clips; in the second step also other sizes, so that only rank 0's buffer has enough of them."""
    numbers = []
    for index, size in enumerate((16, 24 if rank else 16, 16)):
        seraena.correct(*clips(10 * index + rank, size=size))
        numbers.append(seraena.learn())
    return numbers


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=240)
    )
    seraena = Seraena(settings(), rank, 2)
    numbers = train(seraena, rank)
    result: dict[str, Any] = {"numbers": numbers, "state": seraena.state_dict(), "rank_state": seraena.rank_state()}
    torch.save(result, folder / f"trained-{rank}.pt")
    real, fake, latents = clips(90)
    spoiled = fake * torch.nan if rank else fake
    errors = {"clip": error_of(lambda: (seraena.correct(real, spoiled, latents), seraena.learn()))}
    if rank:  # damage that only the backward pass of one rank meets
        next(seraena.discriminator.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    before = [parameter.detach().clone() for parameter in seraena.discriminator.parameters()]
    seraena.correct(real, fake, latents)
    errors["gradient"] = error_of(seraena.learn)
    errors["unchanged"] = str(same(before, list(seraena.discriminator.parameters())))
    if rank:
        with torch.no_grad():
            next(seraena.discriminator.parameters()).fill_(torch.nan)
    errors["weights"] = error_of(
        lambda: seraena.correct(real, fake, latents)
    )  # told to no other rank: the step's verdict is
    torch.save(errors, folder / f"errors-{rank}.pt")
    dist.gather("end")
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads abort an orderly exit now and then, after all work is done


def test_ranks_keep_one_discriminator_and_fail_together(tmp_path: Path) -> None:
    multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    one, two = (torch.load(tmp_path / f"trained-{rank}.pt", weights_only=True) for rank in range(2))
    assert same(one["state"], two["state"])
    assert one["numbers"] == two["numbers"] and all(one["numbers"])
    assert not same(one["rank_state"], two["rank_state"])
    fresh = Seraena(settings(), 0, 2)
    train(fresh, 0)  # on its own, without the other rank's share
    assert not same(fresh.state_dict()["discriminator"], one["state"]["discriminator"])
    for rank in range(2):
        errors = torch.load(tmp_path / f"errors-{rank}.pt", weights_only=True)
        assert "decoded clips that are not finite" in errors["clip"]
        assert "loss or the gradient" in errors["gradient"] and errors["unchanged"] == "True"
        assert ("finite frames" in errors["weights"]) == (rank == 1)
