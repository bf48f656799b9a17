"""Both streams with weights split over processes and with checkpointing: the same gradients as in one process."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false

import multiprocessing
import os
import socket
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unireel.backbones.uni_rows import Film, Words
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.wan import pocket_transformer


def built() -> UniWanTransformer:
    """A small model whose text half is not a copy of the film's, nor its head zero."""
    torch.manual_seed(0)
    model = with_text(pocket_transformer(48, 2, 2, 64, 4, 2, 24), 11, text_mask=True, text_slots=16)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.startswith("text") or name.endswith("_t") or "ffn_t" in name:
                each.add_(0.3 * torch.randn_like(each))
    return model


def loss(model: UniWanTransformer, number: int) -> Tensor:
    """Of one of two batches: a noisy film with words; and words about a clean film, whose own output weighs nothing."""
    draw = torch.Generator().manual_seed(number)
    clean = torch.tensor([number == 1, number == 1])
    film = Film(torch.randn(2, 4, 2, 4, 4, generator=draw), 600.0 * ~clean, clean)
    given = torch.zeros(2, 5, dtype=torch.bool)
    given[:, 0] = True
    ids = torch.randint(0, 11, (2, 5), generator=draw)
    words = Words(ids, 500.0 * ~given, torch.ones_like(given), given)
    seen = model.streams(torch.randn(2, 3, 24, generator=draw), film, words)
    wanted = (~clean).float()[:, None, None, None, None]
    return (seen.video.square() * wanted).mean() + seen.text.log_softmax(-1)[..., 3].square().mean()


def one_of_two(rank: int, port: int, path: str, checkpointing: bool) -> None:
    """Body of a process: the gradients of its batch, averaged, into ``path``."""
    from unireel.training.distributed import shard, start

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port)}
    parallel = start("cpu", "fsdp")
    try:
        module = nn.ModuleDict({"transformer": built()})
        for block in module["transformer"].blocks:
            block.checkpointing = checkpointing
        shard(module, parallel, ("streams",))
        values = []
        for _ in range(2):  # the second time after weights were given back once
            module.zero_grad()
            value = loss(module["transformer"], rank)
            value.backward()
            values.append(float(value.detach()))
        whole = {
            name: each.grad.full_tensor() for name, each in module.named_parameters() if each.grad is not None
        }
        said = torch.tensor(parallel.gather(values[1]))
        if parallel.first:
            save_file({**whole, "losses": said}, path)
    finally:
        parallel.close()


def test_two_processes_with_shards_have_the_gradients_of_one(tmp_path: Path) -> None:
    model = built()
    values = [loss(model, number) for number in (0, 1)]
    torch.stack(values).mean().backward()
    expected = {f"transformer.{name}": each.grad for name, each in model.named_parameters()}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.fsdp", "diffusers", "unireel.training.distributed"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "gradients.safetensors"
    started = [context.Process(target=one_of_two, args=(rank, port, str(path), True)) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in started] == [0, 0]
    found = load_file(path)
    torch.testing.assert_close(found.pop("losses"), torch.stack(values).detach(), rtol=1e-5, atol=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_checkpointing_keeps_less_and_changes_nothing() -> None:
    kept, gradients = [], []
    for checkpointing in (False, True):
        model = built()
        for block in model.blocks:
            block.checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, into=sizes: (into.append(each.numel()), each)[1], lambda each: each
        ):
            value = loss(model, 0)
        value.backward()
        kept.append(sum(sizes))
        gradients.append([each.grad for each in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
    assert kept[1] < 0.5 * kept[0]
