"""PNG files written in bands: another library reads back the same pixels for any band size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coma_gen.report.png import encode_png


@given(
    heights=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**16),
)
def test_pillow_reads_what_was_written(heights: list[int], width: int, seed: int) -> None:
    whole = np.random.default_rng(seed).integers(0, 256, (sum(heights), width, 3), dtype=np.uint8)
    bands = np.split(whole, np.cumsum(heights)[:-1])
    file = encode_png(bands, width=width, height=len(whole), dpi=144)
    image = Image.open(io.BytesIO(file))
    assert image.mode == "RGB"
    assert round(image.info["dpi"][0]) == 144
    np.testing.assert_array_equal(np.asarray(image), whole)


def test_bands_that_do_not_fit_are_refused() -> None:
    band = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(ValueError, match="2 rows in a picture 3 pixels high"):
        encode_png([band], width=3, height=3, dpi=72)
    with pytest.raises(ValueError, match="4 pixels wide"):
        encode_png([band], width=4, height=2, dpi=72)
