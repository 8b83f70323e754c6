"""What a cluster has cost so far, and the grid's meters, as Prometheus reads them."""

import time
from pathlib import Path

import pytest

from iqray.cost import NODE_HOURS_PATH, NodeHours, NodePrices, classify_node, watch_cost
from iqray.grid import EndedTrial
from iqray.grid_meters import GridMeters
from iqray.recipes import RECIPES
from iqray.resources import NodeResources
from iqray.storage import Storage
from iqray.trials import Cell, Trial
from tests.metrics_port import wait_for_value

PRICES = NodePrices(gpu_node=2, cpu_node=1, head_node=0.5)


def test_nodes_have_a_price_by_what_they_are_for() -> None:
    kinds = [classify_node(NodeResources(*own)) for own in ((16, 1), (0, 1), (32, 0), (0, 0))]
    assert kinds == ["gpu_node", "gpu_node", "cpu_node", "head_node"]


def test_hours_add_up_over_jobs_and_so_do_costs(tmp_path: Path) -> None:
    nodes = [NodeResources(0, 0), NodeResources(32, 0), NodeResources(16, 1), NodeResources(16, 1)]
    for _ in range(2):
        hours = NodeHours(Storage(str(tmp_path)))
        hours.add(nodes, 1800)
        hours.write()
    assert NodeHours(Storage(str(tmp_path))).by_kind == {
        "head_node": 1,
        "cpu_node": 1,
        "gpu_node": 2,
    }
    assert PRICES.add_up(hours.by_kind) == pytest.approx(0.5 + 1 + 2 * 2)
    assert PRICES.add_up({}) == 0


@pytest.mark.usefixtures("local_ray")
def test_a_job_notes_its_nodes_hours_and_exports_their_cost(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    NodeHours(storage).write()
    began_s = time.monotonic()
    with watch_cost("costly", PRICES, storage, interval_s=0.2):
        time.sleep(1)
    most_h = (time.monotonic() - began_s) / 3600
    hours = NodeHours(storage).by_kind
    assert list(hours) == ["cpu_node"]
    assert 0.9 / 3600 < hours["cpu_node"] <= most_h
    wait_for_value(PRICES.add_up(hours), "ray_iqray_cost", 'study="costly"')


def test_nothing_is_noted_without_prices(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with watch_cost("free", None, storage, interval_s=0.01):
        time.sleep(0.1)
    assert not storage.exists(NODE_HOURS_PATH)


@pytest.mark.usefixtures("local_ray")
def test_cells_and_trials_reach_the_nodes_metrics_port() -> None:
    """Four cells on three trials, of which one was there before and one fails."""
    trials = [
        Trial("d", "alexnet", ("a", "b"), "images", 4, 2, 1, 1, seed, RECIPES["demo"], {})
        for seed in range(3)
    ]
    ids = [trial.trial_id for trial in trials]
    cells = [Cell("d", "alexnet", "niqe", "avg_high", 0, own) for own in (*ids, ids[1])]
    meters = GridMeters("metered", cells, {own.trial_id: own for own in trials}, [ids[0]])
    meters.count(EndedTrial(ids[1], "ok", 100.0))
    meters.count(EndedTrial(ids[2], "failed", None))
    tag = 'study="metered"'
    wait_for_value(4, "ray_iqray_cells", tag)
    wait_for_value(3, "ray_iqray_cells_done", tag)
    wait_for_value(100, "ray_iqray_trial_s_total", tag, 'architecture="alexnet"')
    for status in ("ok", "failed"):
        wait_for_value(1, "ray_iqray_trials_total", tag, f'status="{status}"')
