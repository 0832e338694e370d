"""The encoder of ``agents.encoders`` as anyone would write it in PyTorch: what the references compute with.

Ours saves work that repeated observations make; users of other systems do not have that. Parameters have the same
names and shapes. Imports nothing else of Yendor, so that another interpreter can use it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

NUM_GLYPHS = 5977


class ReferenceEncoder(nn.Module):
    """``glyphs_crop`` and ``blstats`` to features.

    Args:
        sizes: fields of ``EncoderConfig``.
        shapes: of one observation, by key.

    Raises:
        ValueError: there are other observation keys.
    """

    def __init__(self, sizes: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        if set(shapes) != {"glyphs_crop", "blstats"}:
            raise ValueError(f"the reference reads glyphs_crop and blstats, not {', '.join(shapes)}")
        crop, blstats = _Crop(sizes), _Blstats(sizes, shapes["blstats"][0])
        self.parts = nn.ModuleDict({"blstats": blstats, "glyphs_crop": crop})
        height, width = (1 + (side - 1) // sizes["crop_stride"] for side in shapes["glyphs_crop"])
        joint = sizes["blstats_hidden"] + sizes["crop_channels"] * height * width
        self.width = int(sizes["hidden"])
        self.joint = nn.Sequential(nn.Linear(joint, self.width), nn.ReLU())

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """``{key: [N, ...]}`` of any number type to float [N, hidden]."""
        return self.joint(torch.cat([part(obs[key]) for key, part in self.parts.items()], dim=1))


class _Crop(nn.Module):
    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        embedding, channels = sizes["glyph_embedding"], sizes["crop_channels"]
        self.embedding = nn.Embedding(NUM_GLYPHS, embedding)
        self.convolutions = nn.Sequential(
            nn.Conv2d(embedding, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=sizes["crop_stride"], padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )

    def forward(self, glyphs: Tensor) -> Tensor:
        return self.convolutions(self.embedding(glyphs.int()).permute(0, 3, 1, 2))


class _Blstats(nn.Module):
    def __init__(self, sizes: Mapping[str, Any], num: int) -> None:
        super().__init__()
        widths = [num, *[sizes["blstats_hidden"]] * sizes["blstats_layers"]]
        layers = ((nn.Linear(inner, outer), nn.ReLU()) for inner, outer in pairwise(widths))
        self.layers = nn.Sequential(*chain.from_iterable(layers))

    def forward(self, blstats: Tensor) -> Tensor:
        x = blstats.float()
        return self.layers(torch.sign(x) * torch.log1p(x.abs()) / 3.0)
