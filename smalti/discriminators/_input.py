"""What discriminators check of what they are given."""

from torch import Tensor

from smalti.nn.sizes import check_classes


def check_images(images: Tensor, channels: int, *, smallest: int = 1, exactly: tuple[int, int] | None = None) -> None:
    """Refuses images that are not (B, ``channels``, H, W) of at least ``smallest`` pixels, or not ``exactly`` H x W.

    Raises:
        ValueError: saying what was expected.
    """
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (B, {channels}, H, W)")
    height, width = images.shape[2:]
    if exactly is not None and (height, width) != exactly:
        raise ValueError(f"images of {height} x {width} pixels: expected {exactly[0]} x {exactly[1]}")
    if min(height, width) < smallest:
        raise ValueError(f"images of {height} x {width} pixels: expected at least {smallest} x {smallest}")


def check_labels(images: Tensor, labels: Tensor | None, num_classes: int) -> None:
    """Refuses a condition that is not classes (B,), is missing, or is given where there are no classes.

    Raises:
        ValueError: saying what was expected.
    """
    if labels is None:
        if num_classes:
            raise ValueError(f"condition is missing: labels (B,) of num_classes={num_classes}")
        return
    if not num_classes:
        raise ValueError("a condition was given: this discriminator has num_classes=0")
    if tuple(labels.shape) != (images.shape[0],) or labels.is_floating_point():
        raise ValueError(f"condition has shape {tuple(labels.shape)}: expected whole numbers ({images.shape[0]},)")
    check_classes(labels, num_classes)
