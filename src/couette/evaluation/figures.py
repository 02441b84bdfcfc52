"""An evaluation as files: figures, the words, and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL.Image import Image

from couette.evaluation.report import Pairs, Report
from couette.render import bars, curves, nearest, save
from couette.storage import write_bytes, write_json

SHOWN = 24


def write(report: Report, folder: Path) -> list[Path]:
    """Write a report into a folder: report.json, report.txt and the figures.

    Figures: `levels.png` (loss by noise level), `classes.png` (accuracy by class), and for each
    model sampled `neighbours-MODEL.png` (the first samples beside their nearest training pictures)
    and `closest-MODEL.png` (the most suspicious ones, by ratio).

    Returns:
        The files, in that order.

    Raises:
        StorageError: the disk is full, read-only or refuses.
    """
    json_path, text_path = folder / "report.json", folder / "report.txt"
    write_json(json_path, report.json())
    write_bytes(text_path, ("\n".join(report.lines()) + "\n").encode())
    written = [json_path, text_path]
    for name, image in figures(report).items():
        path = folder / f"{name}.png"
        save(image, path, text={"couette": f"evaluation on {report.data}, seed {report.seed}"})
        written.append(path)
    return written


def figures(report: Report) -> Mapping[str, Image]:
    """The figures by file name, without the suffix."""
    drawn = {}
    if report.losses:
        drawn["levels"] = _levels(report)
    if any(each.judged and each.judged.by_class for each in report.samples.values()):
        drawn["classes"] = _classes(report)
    for name, pairs in report.pairs.items():
        drawn[f"neighbours-{name}"] = _sheet(pairs, f"The first samples of the {name}")
        nearest_first = Pairs(*(part[pairs.ratio.argsort(stable=True)] for part in pairs))
        drawn[f"closest-{name}"] = _sheet(nearest_first, f"The closest samples of the {name}")
    return drawn


def _levels(report: Report) -> Image:
    series = {}
    for name, losses in report.losses.items():
        series[f"{name}, held-out"] = (losses.log_snr, losses.held_out)
        series[f"{name}, training"] = (losses.log_snr, losses.training)
    return curves(
        series,
        x="log signal-to-noise ratio (noise on the left)",
        y="loss",
        title="Loss by noise level",
        marks=True,
    )


def _classes(report: Report) -> Image:
    judged = {name: each.judged for name, each in report.samples.items() if each.judged}
    classes = list(next(iter(judged.values())).by_class)
    series = {
        name: [each.by_class.get(label, float("nan")) for label in classes]
        for name, each in judged.items()
    }
    real = report.floor.judged
    reference = None
    if real is not None and real.accuracy is not None:
        reference = ("held-out pictures", real.accuracy)
    return bars(
        classes,
        series,
        x="class asked for",
        y="share classified as asked",
        title="Samples by class",
        ylim=(0, 1.1),
        reference=reference,
    )


def _sheet(pairs: Pairs, title: str) -> Image:
    first = Pairs(*(part[:SHOWN] for part in pairs))
    return nearest(
        first.generated,
        first.training,
        first.distance,
        copies=first.copies,
        title=f"{title} (left), each beside its nearest training picture (right)",
    )
