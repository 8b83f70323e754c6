import subprocess
import sys

import pytest
from pyiqa.default_model_configs import DEFAULT_CONFIGS

from iqray.errors import StudyError
from iqray.metrics.registry import METRICS_WITH_FILES, find_metric
from iqray.study import PAPER_METRICS


def test_the_papers_metrics_are_known_without_importing_torch_or_pyiqa():
    code = (
        "import sys; from iqray.metrics.registry import find_metric; find_metric('niqe'); "
        "sys.exit(bool({'torch', 'pyiqa'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", PAPER_METRICS)
def test_static_facts_are_those_of_pyiqa(name):
    info, config = find_metric(name), DEFAULT_CONFIGS[name]
    assert info.lower_better == config.get("lower_better", False)
    assert info.score_range == config["score_range"]
    assert config["metric_mode"] == "NR"


def test_every_metric_of_the_paper_has_files():
    assert set(METRICS_WITH_FILES) == set(PAPER_METRICS)


@pytest.mark.parametrize("metric", METRICS_WITH_FILES)
def test_file_names_are_those_of_pyiqas_download(metric):
    from pyiqa.archs import brisque_arch, clip_model, cnniqa_arch, dbcnn_arch, musiq_arch, niqe_arch

    urls = {
        "brisque": brisque_arch.default_model_urls["url"],
        "clipiqa": clip_model._MODELS["RN50"],
        "cnniqa": cnniqa_arch.default_model_urls[_read_variant("cnniqa")],
        "dbcnn": dbcnn_arch.default_model_urls[_read_variant("dbcnn")],
        "musiq": musiq_arch.default_model_urls[_read_variant("musiq")],
        "niqe": niqe_arch.default_model_urls["url"],
    }
    assert find_metric(metric).weight_files == (urls[metric].rsplit("/", 1)[-1],)


def _read_variant(metric):
    return DEFAULT_CONFIGS[metric]["metric_opts"]["pretrained"]


def test_any_other_no_reference_metric_comes_from_pyiqa():
    info = find_metric("piqe")
    assert info.lower_better
    assert info.score_range == "0, 100"
    assert info.weight_files == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("musik", r"unknown metric 'musik'; choose from brisque, .*did you mean 'musiq'\?"),
        ("lpips", "'lpips' compares with a reference image"),
        ("fid", "'fid' scores a set of images"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused(name, message):
    with pytest.raises(StudyError, match=message):
        find_metric(name)
