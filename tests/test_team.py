"""Two processes that train one network together, compared with one that does it alone."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from iqray.recipes import Recipe
from iqray.training.loop import LogRow, train
from iqray.training.team import ALONE, Team
from tests.toy_images import make_colour_data

RECIPE = Recipe.model_validate(
    {
        "name": "test",
        "epochs": 1,
        "batch_size": 8,
        "schedule": "constant",
        "architectures": {"resnet50": {"input_px": 32, "learning_rate": 0.02, "clip_norm": 0.5}},
    }
)


def train_small(team: Team) -> tuple[dict[str, torch.Tensor], list[LogRow]]:
    """A network without batch normalisation and dropout, whose result no cut of a batch changes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 3)
        )
    data, rows = make_colour_data(7, seed=1), []
    train(model, data, RECIPE, "resnet50", 9, 3, torch.device("cpu"), rows.append, team=team)
    return model.state_dict(), rows


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    team = Team(rank, 2)
    team.check_agreed("a number", 1)
    differs = False
    try:
        team.check_agreed("their rank", rank)
    except RuntimeError:
        differs = True
    torch.save((*train_small(team), differs), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    folder = tmp_path_factory.mktemp("team")
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)]


def test_a_team_ends_with_the_weights_of_one_process(together: list[tuple]) -> None:
    alone, _ = train_small(ALONE)
    torch.testing.assert_close(together[0][0], alone, rtol=1e-4, atol=1e-6)
    for name, value in together[0][0].items():
        assert torch.equal(value, together[1][0][name])


def test_every_process_logs_whole_batches(together: list[tuple]) -> None:
    _, alone = train_small(ALONE)
    for _, rows, _ in together:
        assert [row["top1"] for row in rows] == [row["top1"] for row in alone]
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in alone])


def test_processes_that_do_not_agree_notice_it(together: list[tuple]) -> None:
    assert [differs for _, _, differs in together] == [True, True]
