"""Draw the README's picture, docs/images/four-curves.png, from lesson 03's recorded numbers."""

import matplotlib.pyplot as plt

from utils import parity
from utils.tracks import ROOT

target = ROOT / "docs" / "images" / "four-curves.png"
target.parent.mkdir(parents=True, exist_ok=True)
plt.switch_backend("agg")
parity.draw(parity.load_recorded("03_dense_layers"), "pytorch", "loss")
plt.savefig(target, dpi=130)
print(f"{target.relative_to(ROOT)} drawn")
