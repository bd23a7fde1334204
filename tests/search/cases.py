"""A space small enough to enumerate, and scores with structure."""

import zlib
from dataclasses import dataclass, field

from metalearn.search._expand import expanded, smallest

OPERATORS = ("identity", "max_pool_3x3", "sep_conv_3x3")
WORTH = {"identity": 0.3, "sep_conv_3x3": 1.0, "max_pool_3x3": 0.6}
FIRST = smallest(OPERATORS)
SPACE = FIRST + expanded(FIRST, OPERATORS)


@dataclass(frozen=True)
class Structured:
    """A score of operators, of pairs, of depth, and noise that a seed decides; it fails on cells
    that say so."""

    seed: int = 0
    # no setting: a search goes on once it is mended
    failing: str = field(default="none", repr=False)

    def __call__(self, cell):
        if self.failing in str(cell):
            raise MemoryError(f"no room for {self.failing}")
        noise = zlib.crc32(f"{cell}, {self.seed}".encode()) / 2**32
        total = 0.2 * noise + 0.5 * (len(cell.outputs) == 1)
        for block in cell.blocks:
            names = block.left_operator, block.right_operator
            total += sum(WORTH[name] for name in names) - 0.7 * (names[0] == names[1])
            total += sum(0.25 * (source == -1) + 0.4 * (source >= 0) for source in block.inputs)
        return total
