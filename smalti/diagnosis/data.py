"""Rules about what comes in: images, labels, teachers."""

from collections.abc import Iterator

from smalti.diagnosis.history import View, holds
from smalti.diagnosis.rule import Rule, Sighting

IMAGE = "train/image/"
ONE_GREY_LEVEL = 2 / 255  # of images in [-1, 1]
LEAST_LABELS = 512  # a second class of one in a hundred images stays unseen with probability 0.99^512 = 0.6 %


def _out_of_range(view: View) -> bool:
    """Images beyond [-1, 1], or with nothing below 0 in any of at least five looks."""
    beyond = max(view.high(f"{IMAGE}max"), -view.low(f"{IMAGE}min")) > 1.5
    halved = view.low(f"{IMAGE}min") >= 0.0 and holds(view.latest(f"{IMAGE}deviation", 5), lambda value: value > 0, 5)
    return beyond or halved


def _range(view: View) -> Iterator[Sighting]:
    if _out_of_range(view):
        yield Sighting(evidence={"least value": view.low(f"{IMAGE}min"), "largest": view.high(f"{IMAGE}max")})


def _judged(view: View) -> Iterator[Sighting]:
    for name, _ in view.between("train/", "/logits_real"):
        if _out_of_range(view):
            evidence = {"least value": view.low(f"{IMAGE}min"), "largest": view.high(f"{IMAGE}max")}
            yield Sighting(subject=name, evidence=evidence)


def _constant(view: View) -> Iterator[Sighting]:
    constant, alike = view(f"{IMAGE}constant"), view(f"{IMAGE}difference")
    if constant > 0.5 or alike < 0.02:
        yield Sighting(evidence={"share of images of one colour": constant, "difference between images": alike})


def _labels(view: View) -> Iterator[Sighting]:
    least, largest = view.low("train/label/min"), view.high("train/label/max")
    if view("train/label/seen") >= LEAST_LABELS and least == largest:
        yield Sighting(evidence={"label": least, "images seen": view("train/label/seen")})


def _grey(view: View) -> Iterator[Sighting]:
    colour = view.high(f"{IMAGE}colour")
    if colour < ONE_GREY_LEVEL and view.low(f"{IMAGE}max") > view.low(f"{IMAGE}min"):
        yield Sighting(evidence={"mean difference of channels": colour})


def _teachers(view: View) -> Iterator[Sighting]:
    for name, variation in view.between("train/teacher/", "/variation"):
        if variation < 1e-3:
            yield Sighting(subject=f"teacher {name}", evidence={"difference between images / size": variation})


RULES = (
    Rule(
        id="data-range",
        title="Images in the wrong range",
        look=_range,
        threshold="values beyond 1.5, or five looks at batches without a single value below 0 (half of the range)",
        cause="images are not in [-1, 1]: they look like 0..255 or [0, 1], or are normalised otherwise",
        change="data.source: give Pillow images or uint8 arrays (they become [-1, 1] on the device), or scale floats "
        "to [-1, 1] yourself",
    ),
    Rule(
        id="discriminator-range",
        title="The discriminator is fed unnormalised images",
        look=_judged,
        threshold="as data-range, where a discriminator looks at these images",
        cause="real images are in another range than made ones: the discriminator tells them apart by that alone",
        change="data.source: as for data-range",
    ),
    Rule(
        id="constant-images",
        title="Constant images",
        look=_constant,
        threshold="over half of the images have one colour (within two grey levels), or two images of a batch differ "
        "by less than 2 % of half the range",
        cause="images are empty, or all the same",
        change="data.source: look at what it gives (smalti reconstruct, sample pictures); data.transform: a crop that "
        "does not fall into borders",
    ),
    Rule(
        id="grey-images",
        title="Grey images in three channels",
        look=_grey,
        threshold="in no batch so far channels differed by as much as one grey level on average: JPEG of a photo in "
        "black and white does not either",
        cause="the images are grey, copied to three channels: a third of the network's numbers would say as much, and "
        "distances and codes count everything three times",
        change="image_channels: 1 in encoder, decoder and discriminator, and a source that gives grey images; leave it "
        "where a pretrained network needs three channels",
    ),
    Rule(
        id="constant-labels",
        title="Labels that do not vary",
        look=_labels,
        patience=1,
        threshold=f"one and the same label for {LEAST_LABELS} images: a second class of one in a hundred would stay "
        "unseen in 0.6 % of runs",
        cause="all labels are the same: a conditional network learns nothing from them",
        change="data.source.table: its column of labels, or num_classes: 0 for a network without condition",
    ),
    Rule(
        id="teacher-constant",
        title="Teacher features constant",
        look=_teachers,
        threshold="features of two images differ by less than a thousandth of their size",
        cause="the teacher says the same of every image: its term teaches nothing",
        change="objective.teachers.<name>: its weights (weights: random?), its normalization and size; the range of "
        "the images",
    ),
)
