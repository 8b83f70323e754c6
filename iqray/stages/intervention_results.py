"""What interventions have left below an output root, for whoever reads it without running any."""

from iqray.schemas import INTERVENTION_SCORES
from iqray.stages.subsets import SUBSETS_PATH
from iqray.storage import Storage

EFFECTS_PATH = "effects.parquet"
SCORES_PATH = "measured_scores.parquet"

_FOLDER = "interventions"


def get_intervention_folder(name: str) -> str:
    """Where an intervention's own study has its root, below that of the study."""
    return f"{_FOLDER}/{name}"


def list_current_interventions(storage: Storage) -> list[str]:
    """Folders of finished interventions on subsets whose categories are those of the study now.

    Without those whose tables an older version has written, which jobs/intervene.py writes anew.
    """
    folders = map(get_intervention_folder, sorted(storage.list_names(_FOLDER)))
    return [folder for folder in folders if _is_current(storage, storage.below(folder))]


def _is_current(storage: Storage, own: Storage) -> bool:
    if not (own.exists(EFFECTS_PATH) and own.exists(SCORES_PATH) and own.exists(SUBSETS_PATH)):
        return False
    if not own.read_table(SCORES_PATH).schema.equals(INTERVENTION_SCORES):
        return False
    effects = own.read_table(EFFECTS_PATH, ["dataset", "metric", "subset"]).slice(0, 1).to_pylist()
    changed = own.read_table(SUBSETS_PATH, ["category"])["category"].to_pylist()
    return bool(effects) and set(changed) == {
        row["category"]
        for row in storage.read_table(SUBSETS_PATH).to_pylist()
        if all(row[name] == effects[0][name] for name in ("dataset", "metric", "subset"))
    }


def list_keys(storage: Storage) -> list[str | None]:
    """Keys of the tables of all current interventions."""
    return [
        storage.read_key(f"{folder}/{path}")
        for folder in list_current_interventions(storage)
        for path in (EFFECTS_PATH, SCORES_PATH)
    ]
