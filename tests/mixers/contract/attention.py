"""The contract's cases of attention."""

from attention_reference import system  # noqa: F401

from contract import Case

CASES = {
    "attention": Case({"heads": 1}, main=True),
    "attention_two": Case({"heads": 2, "causal": False, "positions": "none"}, main=True),
    "attention_window": Case({"heads": 1, "window": 5}),
    "attention_wide": Case({"heads": 2, "qkv_width": 8, "window": 5}),
    "attention_learned": Case({"heads": 2, "positions": "learned", "bias": False}),
}
