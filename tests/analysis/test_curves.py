import json

from s5jax.analysis.curves import plot_learning_curves


def test_a_metric_that_an_evaluator_reports_at_other_steps_than_the_best(tmp_path):
    records = [
        {"step": 4, "epoch": 0.5, "val/loss": 1.0, "train/loss": 1.5},
        {"step": 6, "epoch": 0.75, "val/bits": 2.0},
        {"step": 8, "epoch": 1.0, "val/loss": 0.5, "train/loss": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "result.json").write_text(json.dumps({"best_step": 8, "test/loss": 0.6}))
    assert plot_learning_curves(tmp_path).read_bytes().startswith(b"\x89PNG")
