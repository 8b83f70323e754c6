"""`cluster/grafana/iqray.json`: every metric that it names is one that iqray or Ray emits."""

import ast
import json
import re
from pathlib import Path
from typing import Any

from tests.cluster_files import CLUSTER, PROJECT

DASHBOARD = json.loads((CLUSTER / "grafana/iqray.json").read_text())
METER_CLASSES = {"Counter", "Gauge", "Histogram"}


def list_expressions() -> list[str]:
    """What is asked of Prometheus, in panels and for the menus on top."""
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    menus = [menu["query"] for menu in DASHBOARD["templating"]["list"]]
    return targets + menus


def list_emitted() -> set[str]:
    """Metrics that iqray's code makes, as Prometheus names them."""
    return {
        f"ray_{node.args[0].value}"
        for path in (PROJECT / "iqray").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if is_meter(node)
    }


def is_meter(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METER_CLASSES
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def test_own_metrics_are_all_shown_and_no_others() -> None:
    named = set(re.findall(r"ray_iqray_\w+", " ".join(list_expressions())))
    assert named == list_emitted()


def test_other_metrics_are_in_rays_own_dashboards() -> None:
    import ray

    folder = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
    known = "".join(path.read_text() for path in folder.glob("*.py"))
    named = set(re.findall(r"\bray_(?!iqray)\w+", " ".join(list_expressions())))
    assert len(named) == 2
    for name in named:
        assert re.search(rf"\b{name}\b", known), name


def test_panels_do_not_overlap_and_ask_the_chosen_prometheus() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)
