"""Published values that the Transformers' rows of several tasks of the Long Range Arena have in common."""

from configs.common import Row

LRA_TEXT: Row = {
    "seed": 0,
    "model.encoder": "embedding",
    "model.depth": 4,
    "model.dropout": 0.1,
    "optim.weight_decay": 0.1,
    "optim.b2": 0.98,
    "optim.eps": 1e-9,
    "optim.schedule": "inverse_sqrt",
    "train.batch_size": 32,
}
"""The Long Range Arena's Transformers on ListOps, Text and Retrieval. Their rate after a warm-up of W steps is
0.05 / sqrt(step), so that `lr` is 0.05 / sqrt(W)."""
LRA_IMAGES: Row = {
    "seed": 0,
    "optim.weight_decay": 0.0,
    "optim.b2": 0.98,
    "optim.eps": 1e-9,
    "train.epochs": 200,
    "train.warmup_epochs": 1,
}
"""The same on Image and Pathfinder."""
PONET_SIZES: Row = {
    "model.depth": 2,
    "model.d_model": 64,
    "model.dropout": 0.1,
    "optim.lr": 0.0001,
    "optim.weight_decay": 0.0,
    "optim.eps": 1e-6,
}
"""PoNet's published values for all tasks."""
TRANSNORMER_SIZES: Row = {"seed": 2222, "model.depth": 4, "optim.weight_decay": 0.0, "train.schedule_steps": 50_000}
"""TransNormer's published values for all tasks; the width is 128 everywhere."""
