import numpy as np
import pytest
from PIL import Image

from corrflow import InputError
from corrflow.speed.measure import Need, Row
from corrflow.speed.plot import draw_growth


def series(peak=10.0):
    def row(variant, seconds):
        return Row("work", variant, seconds, seconds, seconds, 1.0, peak, 1.0, Need(1, 1, 0))

    points = [
        (side, [row("released", side / 64), row("corrflow", side / 640)]) for side in (64, 128)
    ]
    # the released formulation did not fit into memory at this size
    return {"side": [*points, (256, [row("corrflow", 0.4)])]}


@pytest.mark.parametrize("peak", [10.0, None])
def test_curves_are_drawn_whether_or_not_memory_is_known(tmp_path, peak):
    pytest.importorskip("matplotlib")
    draw_growth(series(peak), tmp_path / "growth.png")
    picture = np.asarray(Image.open(tmp_path / "growth.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_a_missing_matplotlib_is_reported_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        draw_growth(series(), tmp_path / "growth.png")
