#!/usr/bin/python3
"""Writes scikit-learn's handwritten digits (1,797 grey images of 8 x 8) as IDX files for the trainer.

Every fifth image of each class is for testing. Needs numpy and scikit-learn (Debian: python3-sklearn).
usage: tools/digits_to_idx.py FOLDER
"""

import pathlib
import struct
import sys


def write_idx(path, array):
    """An array of unsigned bytes: magic number with its rank, extents, bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__.strip().splitlines()[-1], file=sys.stderr)
        return 2
    try:
        import numpy
        from sklearn.datasets import load_digits
    except ImportError as error:
        print(f"error: {error}: apt-get install python3-sklearn", file=sys.stderr)
        return 1
    digits = load_digits()
    # Their values are 0 ... 16.
    images = numpy.rint(digits.images * (255 / 16)).astype(numpy.uint8)
    labels = digits.target.astype(numpy.uint8)
    is_test = numpy.zeros(len(labels), dtype=bool)
    for digit in range(10):
        is_test[numpy.flatnonzero(labels == digit)[4::5]] = True
    folder = pathlib.Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", ~is_test), ("test", is_test)):
        write_idx(folder / f"{name}-images-idx3-ubyte", images[chosen])
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels[chosen])
        part = images[chosen] / 255
        print(f"{name}: {chosen.sum()} images, mean {part.mean():.3f}, stddev {part.std():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
