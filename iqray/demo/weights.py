"""Fits the demo's stand-ins for the six metrics' weights, so that a study runs without a hub.

Writes the six files that pyiqa loads; whoever fits them gives them the provenance "demo weights".
They order the severity of held-out generated images; on photographs they mean nothing. The same
seed gives the same bytes with the same software and number of threads. Elsewhere sums may run in
another order, and scores then differ in their last digits.
"""

from collections.abc import Callable
from pathlib import Path

from iqray.demo.weights_clip import fit_clipiqa
from iqray.demo.weights_deep import fit_cnniqa, fit_dbcnn, fit_musiq
from iqray.demo.weights_nss import fit_brisque, fit_niqe

DEMO_WEIGHTS = "demo weights"

# Each writes the one file of its metric into a directory, from a seed, independently of the others.
FITS: dict[str, Callable[[Path, int], None]] = {
    "brisque": fit_brisque,
    "clipiqa": fit_clipiqa,
    "cnniqa": fit_cnniqa,
    "dbcnn": fit_dbcnn,
    "musiq": fit_musiq,
    "niqe": fit_niqe,
}
