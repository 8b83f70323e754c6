from pathlib import Path
from typing import Any

import pytest

from iqray.errors import StudyError
from iqray.study_file import parse_study, read_study

STUDIES = Path(__file__).parent.parent / "jobs" / "studies"


def make_content(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "root": "out",
        "datasets": [{"name": "d", "root": "images"}],
        "recipe": "demo",
        "weights": {"directory": "weights"},
        **changes,
    }


@pytest.mark.parametrize("name", ["demo", "paper", "example"])
def test_shipped_studies_are_valid(name: str) -> None:
    assert read_study(STUDIES / f"{name}.yaml").name == name


def test_paper_study_is_the_papers_grid() -> None:
    study = read_study(STUDIES / "paper.yaml")
    assert study.num_cells == 192
    assert [study.subsets.compute_k(count) for count in (1000, 565)] == [50, 28]
    assert study.recipe.name == "paper"
    assert not study.recipe.is_preview


def test_root_can_be_replaced() -> None:
    assert parse_study(make_content(), root="s3://bucket/x").root == "s3://bucket/x"


def test_recipe_takes_over_what_differs_from_its_base() -> None:
    recipe = {"base": "paper", "epochs": 3, "architectures": {"vgg16": {"learning_rate": 0.5}}}
    study = parse_study(make_content(recipe=recipe))
    assert study.recipe.epochs == 3
    assert study.recipe.batch_size == 256
    assert study.recipe.architectures["vgg16"].learning_rate == 0.5
    assert study.recipe.architectures["vgg16"].input_px == 224


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": ["niqe"]}, r"unknown key 'metric' in a study.*did you mean 'metrics'"),
        ({"subsets": {"fractoin": 0.1}}, r"'fractoin' in subsets.*did you mean 'fraction'"),
        (
            {"datasets": [{"name": "d", "root": "x", "val": "v"}]},
            r"unknown key 'val' in datasets.0; the keys are name, root",
        ),
        ({"architectures": ["resnet51"]}, r"unknown architecture 'resnet51'; choose from alexnet"),
        ({"recipe": "papper"}, r"unknown recipe 'papper'; choose from paper, fast, demo"),
        (
            {"training": {"num_workers": 2, "engine": "in_trial"}},
            r"num_workers is 2, but engine in_trial trains in one process; take engine ray_train",
        ),
        (
            {"training": {"num_workers": 2, "num_gpus": 0.5}},
            r"num_gpus is 0.5 with 2 workers; workers of a trial cannot share a GPU",
        ),
        (
            {"training": {"num_workers": 3}},
            r"batch_size is 16, which 3 workers cannot share equally",
        ),
        (
            {"training": {"num_gpus": {"alexnet": 0.5}}},
            r"num_gpus and architectures differ in inception_v3, resnet50, vgg16; name every",
        ),
        ({"training": {"num_gpus": -1}}, r"training.num_gpus is -1.0; give a number from 0 on"),
        (
            {"architectures": ["alexnet"], "training": {"num_gpus": {"alexnet": 0}}},
            r"num_gpus is {'alexnet': 0.0}; .*all on GPUs or none",
        ),
        ({"training": {"engine": "ray"}}, r"training.engine is 'ray'"),
        ({"controls": {"difficulty_matched": 3}}, r"difficulty_matched is 3 and .* give both"),
        (
            {"controls": {"image_halves": True}, "scoring": {"precision": "bf16"}},
            r"controls.image_halves needs the exact order of images",
        ),
        *(
            (
                {
                    "scoring": {"precision": "bf16"},
                    "interventions": [
                        {
                            "dataset": "d",
                            "metric": "niqe",
                            "subset": "avg_low",
                            "changes": [
                                {"kind": "blur", "strengths": [0.5]},
                                {"kind": kind, "share": 0.5},
                            ],
                        }
                    ],
                },
                rf"interventions, {kind}, needs the exact order of images",
            )
            for kind in ("nearest", "farthest")
        ),
        ({"controls": {"untrained": 3}}, r"controls.untrained is 3"),
        ({"subsets": {"names": ["avg_top"]}}, r"unknown subset 'avg_top'; .* followed by _high or"),
        (
            {"subsets": {"disjoint": True}, "scoring": {"precision": "bf16"}},
            r"subsets.disjoint needs the exact order",
        ),
        ({"subsets": {"fraction": 0.7}}, r"subsets.fraction is 0.7: .*less than or equal to 0.5"),
        ({"seeds": [1, 1]}, r"seeds names 1 twice"),
        ({"weights": {}}, r"weights must have either directory"),
        ({"datasets": []}, r"datasets is \[\]"),
        ({"datasets": [{"name": "d"}]}, r"dataset 'd' must have either root"),
        (
            {"datasets": [{"name": "d", "root": "x", "train": "a", "test": "a"}]},
            r"train and test both 'a'",
        ),
        (
            {"datasets": [{"name": "d", "root": "x", "key_column": "id"}]},
            r"'d' has key_column, which only layout parquet reads; its layout is folders: remove",
        ),
        (
            {"datasets": [{"name": "d", "root": "x", "layout": "parquet", "category_field": "y"}]},
            r"category_field, which only layout webdataset reads",
        ),
        (
            {"datasets": [{"name": "d", "demo": "a", "layout": "webdataset"}]},
            r"'d' is a demo, whose layout is folders",
        ),
        (
            {"datasets": [{"name": "d", "root": "x", "train": "a/", "test": "./a"}]},
            r"train and test both 'a/'",
        ),
        ({"datasets": [{"name": "duplicates", "root": "x"}]}, r"'duplicates' is taken"),
        ({"name": "../up"}, r"name is '../up'"),
    ],
)
def test_mistakes_name_value_rule_and_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(make_content(**changes))


def test_columns_have_names_where_they_are_read_and_survive_a_round_trip() -> None:
    datasets = [
        {"name": "p", "root": "x", "layout": "parquet", "image_column": "img", "test": None},
        {"name": "f", "root": "s3://bucket/x?region=eu-west-1"},
    ]
    study = parse_study(make_content(datasets=datasets))
    columns = [(own.image_column, own.category_column) for own in study.datasets]
    assert columns == [("img", "label"), (None, None)]
    assert study.datasets[0].test is None
    assert parse_study(study.model_dump(mode="json")) == study


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(StudyError, match=r"(?s)unknown key 'a'.*unknown key 'b'"):
        parse_study(make_content(a=1, b=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [unclosed", "not valid YAML"),
        ("just words", "must be a mapping"),
        ("name: x", "key 'root' is missing"),
        ("name: 2026-02-30", "for a date .*day is out of range.* quotes"),
        ("name: 2026-02-28", "name is .*valid string"),
        ("name: k\u00e4fer".encode("latin-1"), r"study.yaml' is not UTF-8 text \('utf-8' codec"),
    ],
)
def test_unusable_files_are_explained(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError, match=message):
        read_study(path)


def test_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere.yaml' cannot be read"):
        read_study(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("training", "engine"),
    [
        ({}, "in_trial"),
        ({"num_workers": 2}, "ray_train"),
        ({"num_gpus": 0.25}, "ray_train"),
        ({"num_gpus": 1, "engine": "in_trial"}, "in_trial"),
        ({"engine": "ray_train"}, "ray_train"),
    ],
)
def test_gpus_and_several_workers_ask_for_ray_train(training: dict[str, Any], engine: str) -> None:
    assert parse_study(make_content(training=training)).training.choose_engine() == engine
