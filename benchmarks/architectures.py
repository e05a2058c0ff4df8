"""Ten architectures as plain torch modules, for comparing tools: no torchvision, no timm, no transformers.

    from architectures import ARCHITECTURES
    network, inputs = ARCHITECTURES["vit_s"].make()

Sizes are those of the originals unless the description says otherwise; weights are random from a fixed seed. Attention
is written so that a tool that prunes torch modules has it easy: the numbers of heads and their width are attributes
that `Attention.resize` can be called afterwards, and nothing else in a forward pass remembers a width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from architectures_attention import Bert, Llama, ViT
from architectures_convolution import UNet, densenet121, mobilenet_v2, resnet50, se_resnet18, shufflenet_v2
from torch import Tensor, nn

SEED = 0


@dataclass(frozen=True)
class Architecture:
    """How to make a network and example inputs for it."""

    description: str
    network: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]

    def make(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network in evaluation mode, its normalizations as unequal as after training, and its inputs."""
        torch.manual_seed(SEED)
        network = self.network().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return network, self.inputs()


def image(size: int = 224, batch: int = 1) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, size, size),)


def tokens(vocabulary: int, length: int, batch: int = 1) -> tuple[Tensor, ...]:
    return (torch.randint(vocabulary, (batch, length)),)


class Tagger(nn.Module):
    """Words, two layers of bidirectional LSTM, a tag for each word."""

    def __init__(self, words: int = 20000, width: int = 128, hidden: int = 256, tags: int = 50):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(ids))[0])


ARCHITECTURES = {
    "resnet50": Architecture("ResNet-50", resnet50, image),
    "mobilenet_v2": Architecture("MobileNetV2", mobilenet_v2, image),
    "densenet121": Architecture("DenseNet-121", densenet121, image),
    "shufflenet_v2": Architecture("ShuffleNetV2 (channel shuffle)", shufflenet_v2, image),
    "unet": Architecture("U-Net, 32 to 512 channels", UNet, lambda: image(128)),
    "se_resnet18": Architecture("SE-ResNet-18 (squeeze-excite)", se_resnet18, image),
    "vit_s": Architecture("ViT-S/16, fused qkv", ViT, image),
    "bert_base": Architecture("BERT-base", Bert, lambda: tokens(30522, 64)),
    "llama": Architecture("small LLaMA: grouped queries, rotary", Llama, lambda: tokens(8000, 32)),
    "lstm_tagger": Architecture("LSTM tagger, bidirectional", Tagger, lambda: tokens(20000, 32, 2)),
}
