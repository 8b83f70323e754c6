import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from iqray.embeddings.network_files import check_networks, provide_networks
from iqray.embeddings.networks import (
    build_network,
    decode_state,
    draw_untrained,
    encode_state,
    fetch_published,
    get_pretrained_url,
    read_checkpoint,
)
from iqray.errors import StudyError
from iqray.identity import hash_content
from iqray.recipes import ARCHITECTURES
from iqray.settings.embedding import Checkpoint, EmbeddingSettings
from iqray.storage import Storage
from iqray.study import Study
from iqray.study_file import parse_study
from iqray.training.architectures import create_model
from jobs.full_grid import main
from tests.small_study import write_study

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return create_model("resnet50", 3, 32, seed=0).state_dict()


def answer(model: torch.nn.Module, input_px: int) -> torch.Tensor:
    images = torch.randn(2, 3, input_px, input_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval()(images)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untrained_network_is_a_trials_network_before_its_first_step(architecture: str) -> None:
    input_px = 128
    own = build_network(draw_untrained(architecture, input_px, 1), architecture, False)
    drawn = create_model(architecture, 1000, input_px, seed=1)
    assert torch.equal(answer(own, input_px), answer(drawn, input_px))


def test_pretrained_inception_gets_the_input_that_torchvision_gives_it() -> None:
    """torchvision's builder sets transform_input for these weights; others have it off."""
    state = draw_untrained("inception_v3", 128, 0)
    published = torchvision.models.inception_v3(
        aux_logits=False, init_weights=False, transform_input=True
    )
    published.load_state_dict(state)
    expected = answer(published, 128)
    own = answer(build_network(state, "inception_v3", rescales_input=True), 128)
    assert torch.equal(own, expected)
    assert not torch.equal(answer(build_network(state, "inception_v3", False), 128), expected)


def test_a_state_comes_back_from_its_bytes(state: State) -> None:
    back = decode_state(encode_state(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def wrap(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "write",
    [
        lambda state, path: torch.save(state, path),
        lambda state, path: torch.save({"model": state, "epoch": 3}, path),
        lambda state, path: torch.save({"state_dict": wrap(state)}, path),
        lambda state, path: save_file(state, path.with_suffix(".safetensors")),
    ],
    ids=["plain", "torchvision's reference", "data parallel", "safetensors"],
)
def test_checkpoints_of_common_forms_are_read(
    write: Callable[[State, Path], None], state: State, tmp_path: Path
) -> None:
    write(state, tmp_path / "mine.pt")
    [file] = tmp_path.iterdir()
    read = read_checkpoint(file, "resnet50")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


class Opens:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_checkpoint_is_never_unpickled(state: State, tmp_path: Path) -> None:
    torch.save({"model": state, "extra": Opens(tmp_path / "ran")}, tmp_path / "mine.pt")
    with pytest.raises(StudyError, match=r"mine\.pt is refused.*unpickled"):
        read_checkpoint(tmp_path / "mine.pt", "resnet50")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "architecture", "message"),
    [
        (lambda state: state, "vgg16", r"no state dict of vgg16: 'classifier\.6\.weight' is miss"),
        (lambda _: {"epoch": 3}, "resnet50", r"'fc\.weight' is missing"),
        (lambda _: [1, 2], "resnet50", "holds no state dict"),
        (
            lambda state: {name: state[name] for name in state if "layer4.2" not in name},
            "resnet50",
            r"no state dict of resnet50: .*Missing key.*layer4\.2",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_explained(
    change: Callable[[State], object],
    architecture: str,
    message: str,
    state: State,
    tmp_path: Path,
) -> None:
    torch.save(change(state), tmp_path / "mine.pt")
    with pytest.raises(StudyError, match=rf"checkpoint '.*mine\.pt'.*{message}"):
        read_checkpoint(tmp_path / "mine.pt", architecture)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """Folder of torch.hub's checkpoints."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    yield tmp_path / "hub/checkpoints"
    torch.hub.set_dir(before)


def test_published_weights_are_taken_from_the_hubs_folder_and_verified(
    hub: Path, tmp_path: Path
) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (hub / name).write_bytes(content)
    # Nothing listens on port 9, so that a file that is not there cannot be fetched.
    state = fetch_published(f"http://127.0.0.1:9/models/{name}")
    assert torch.equal(state["weight"], torch.ones(3))
    (hub / "net-00000000.pth").write_bytes(content)
    with pytest.raises(StudyError, match=r"wrong sha256: expected 00000000\.\.\., found [0-9a-f]"):
        fetch_published("http://127.0.0.1:9/models/net-00000000.pth")
    with pytest.raises(StudyError, match=r"'net-12345678\.pth' are not there.*put the file from"):
        fetch_published("http://127.0.0.1:9/models/net-12345678.pth")


def test_torchvisions_names_carry_the_digits_that_are_checked() -> None:
    for architecture in ARCHITECTURES:
        digits = get_pretrained_url(architecture).rsplit("-", 1)[-1].removesuffix(".pth")
        assert len(digits) == 8
        assert int(digits, 16) >= 0


def make_study(tmp_path: Path, recipe: object = "demo", **embeddings: object) -> Study:
    content = {
        "name": "s",
        "root": str(tmp_path / "out"),
        "datasets": [{"name": "d", "root": str(tmp_path)}],
        "architectures": ["resnet50"],
        "recipe": recipe,
        "weights": {"directory": "w"},
        "embeddings": {"images": ["all_categories"], **embeddings},
    }
    return parse_study(content)


def test_networks_are_provided_once_and_anew_when_their_file_changes(
    state: State, tmp_path: Path
) -> None:
    file = tmp_path / "mine.pt"
    torch.save(state, file)
    checkpoint = {"name": "mine", "architecture": "resnet50", "file": str(file)}
    study = make_study(tmp_path, networks=["untrained"], checkpoints=[checkpoint])
    storage = Storage(str(tmp_path / "out"))
    check_networks(study, storage)
    assert not (tmp_path / "out").exists()
    untrained, mine = provide_networks(study, storage)
    assert (untrained.name, mine.name) == ("untrained-resnet50-s0", "mine")
    kept = decode_state(storage.read_bytes(mine.path))
    assert all(torch.equal(kept[name], state[name]) for name in state)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/networks").iterdir()}
    assert provide_networks(study, storage) == [untrained, mine]
    assert times == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out/networks").iterdir()
    }

    torch.save({**state, "fc.bias": state["fc.bias"] + 1}, file)
    same, changed = provide_networks(study, storage)
    assert same == untrained
    assert changed.key != mine.key
    kept = decode_state(storage.read_bytes(changed.path))
    assert torch.equal(kept["fc.bias"], state["fc.bias"] + 1)


@pytest.fixture
def no_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without files of torch.hub, whose requests go to a port where nothing listens."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return hub


@pytest.mark.usefixtures("no_network")
def test_published_networks_are_asked_for_where_they_are_needed_and_not_there(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, networks=["pretrained"])
    storage = Storage(str(tmp_path / "out"))
    check_networks(study, storage, fetches=False)
    with pytest.raises(StudyError, match=r"'resnet50-.*\.pth' are not there and cannot be fetched"):
        check_networks(study, storage)
    url = get_pretrained_url("resnet50")
    record = {"key": hash_content(["resnet50", "pretrained", url])}
    storage.write_json("networks/pretrained-resnet50.json", record)
    check_networks(study, storage)
    storage.write_json("networks/pretrained-resnet50.json", {"key": "of other weights"})
    with pytest.raises(StudyError, match=r"are not there and cannot be fetched"):
        check_networks(study, storage)


def test_a_checkpoint_behind_a_uri_is_read_where_it_is_needed(tmp_path: Path) -> None:
    checkpoint = {"name": "m", "architecture": "resnet50", "file": f"file://{tmp_path}/m.pt"}
    study, storage = make_study(tmp_path, checkpoints=[checkpoint]), Storage(str(tmp_path / "out"))
    with pytest.raises(StudyError, match=r"m\.pt' of 'm' cannot be read \(no such file\)"):
        check_networks(study, storage, fetches=False)
    (tmp_path / "m.pt").write_bytes(b"no weights")
    check_networks(study, storage, fetches=False)
    with pytest.raises(StudyError, match=r"m\.pt is refused"):
        check_networks(study, storage)


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_fetches_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings = {"images": ["all_categories"], "networks": ["pretrained"]}
    study = write_study(inputs, tmp_path / "out", embeddings=embeddings)
    main(["--study", str(study), "--dry-run"])
    assert "1 datasets x 1 architectures x 2 metrics" in capsys.readouterr().out
    with pytest.raises(StudyError, match="cannot be fetched"):
        main(["--study", str(study)])
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({"layers": ["layer9"]}, r"embeddings\.layers, resnet50: unknown layer 'layer9'"),
        (
            {"checkpoints": [{"name": "m", "architecture": "vgg16", "file": "/no/such.pt"}]},
            r"checkpoint '/no/such\.pt' of 'm' cannot be read",
        ),
        (
            {"checkpoints": [{"name": "m", "architecture": "vgg16", "file": "/no/such.ckpt"}]},
            r"'/no/such\.ckpt' must end in \.safetensors",
        ),
    ],
)
def test_mistakes_are_explained_before_any_work(
    embeddings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        check_networks(make_study(tmp_path, **embeddings), Storage(str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({"networks": ["pretrained"]}, "no images for them"),
        ({"images": ["own"], "networks": ["untrained"]}, "which only networks of trials have"),
        ({"images": ["own"], "layers": {"lenet": ["fc"]}}, "architecture 'lenet'"),
        ({"extra_images": [{"name": "own", "root": "/x"}]}, "'own' twice, or it is one of"),
        ({"images": ["own", "own"]}, "names one of own, own twice"),
        ({"images": ["own"], "layers": []}, r"embeddings\.layers is empty"),
        ({"images": ["own"], "layers": {"vgg16": []}}, r"embeddings\.layers is empty"),
    ],
)
def test_settings_that_ask_for_nothing_are_refused(
    embeddings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingSettings.model_validate(embeddings)


def test_a_checkpoint_needs_a_recipe_for_its_architecture(tmp_path: Path) -> None:
    own = {"input_px": 32, "learning_rate": 0.1}
    recipe = {"name": "own", "epochs": 1, "batch_size": 8, "architectures": {"resnet50": own}}
    checkpoint = {"name": "m", "architecture": "vgg16", "file": "m.pt"}
    with pytest.raises(StudyError, match="checkpoint 'm' is a vgg16, of which recipe 'own' says"):
        make_study(tmp_path, recipe=recipe, checkpoints=[checkpoint])


def test_names_of_checkpoints_stay_apart() -> None:
    one = Checkpoint(name="mine", architecture="vgg16", file="a.pt")
    for name in ("mine", "untrained-vgg16-s0"):
        other = Checkpoint(name=name, architecture="vgg16", file="b.pt")
        with pytest.raises(ValueError, match=f"uses the name '{name}' twice"):
            EmbeddingSettings(images=("all_categories",), checkpoints=(one, other))
