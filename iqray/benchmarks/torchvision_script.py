"""Train and test one subset the usual way: a script of its own process, in torchvision's style.

    python -m iqray.benchmarks.torchvision_script plan.npz train_folder test_folder result.json

ImageFolder, DataLoader with workers, torchvision's transforms and model, a plain loop. Only what is
random comes from a file, so that the same batches can be trained on elsewhere. Knows nothing of
iqray, and stands for what its users would write without it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

# Of torchvision's references.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


class PlannedCrops(ImageFolder):
    """Training images with crops and flips given instead of drawn."""

    def __init__(self, root: str, input_px: int) -> None:
        super().__init__(root)
        self._input_px = input_px

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        index, box, flips = key
        path, target = self.samples[index]
        image = transforms.pil_to_tensor(self.loader(path))
        side = self._input_px
        image = transforms.resized_crop(image, *box, [side, side], antialias=True)
        if flips:
            image = transforms.horizontal_flip(image)
        image = transforms.to_dtype(image, torch.float32, scale=True)
        return transforms.normalize(image, MEAN, STD), target


def main(plan_file: str, train_folder: str, test_folder: str, result_file: str) -> None:
    """Train on the planned batches, test, and write the final loss and the accuracy."""
    plan = np.load(plan_file)
    num_workers, input_px = int(plan["num_workers"]), int(plan["input_px"])
    train_set = PlannedCrops(train_folder, input_px)
    batches = [
        list(zip(indices.tolist(), boxes.tolist(), flips.tolist(), strict=True))
        for indices, boxes, flips in zip(plan["indices"], plan["boxes"], plan["flips"], strict=True)
    ]
    loader: DataLoader[Any] = DataLoader(train_set, batch_sampler=batches, num_workers=num_workers)
    torch.manual_seed(int(plan["seed"]))
    model = torchvision.models.get_model(
        str(plan["architecture"]), weights=None, num_classes=len(train_set.classes)
    )
    losses = train(model, loader, plan["learning_rates"].tolist(), plan["step_seeds"].tolist())
    final = losses[int(plan["last_epoch"]) :]
    result = {
        "final_loss": sum(final) / len(final),
        "top1": test(model, test_folder, input_px, num_workers),
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def train(
    model: nn.Module, loader: "DataLoader[Any]", learning_rates: list[float], seeds: list[int]
) -> list[float]:
    """Take a step on every batch; gives the losses."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    criterion = nn.CrossEntropyLoss()
    model.train()
    losses = []
    for (images, targets), rate, seed in zip(loader, learning_rates, seeds, strict=True):
        torch.manual_seed(seed)  # of dropout
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test(model: nn.Module, folder: str, input_px: int, num_workers: int) -> float:
    """Share of test images whose category has the highest logit."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(round(input_px * 8 / 7), antialias=True),
            v2.CenterCrop(input_px),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(ImageFolder(folder, transform), batch_size=64, num_workers=num_workers)
    model.eval()
    num_correct = num_images = 0
    with torch.inference_mode():
        for images, targets in loader:
            num_correct += int((model(images).argmax(1) == targets).sum())
            num_images += len(targets)
    return num_correct / num_images


if __name__ == "__main__":
    main(*sys.argv[1:])
