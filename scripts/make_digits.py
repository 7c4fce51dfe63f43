"""Makes corpora/digits of the digits that scikit-learn distributes (pip install scikit-learn)."""

import gzip
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parents[1] / "corpora/digits"

digits = load_digits()
for name, values in {
    "images-idx3-ubyte.gz": np.rint(digits.images * (255 / 16)),
    "labels-idx1-ubyte.gz": digits.target,
}.items():
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    packed = gzip.compress(header + values.astype(np.uint8).tobytes(), 9, mtime=0)
    (FOLDER / name).write_bytes(packed)
