import errno
import logging
import shutil

import jax
import numpy as np
import pytest
import tiny
from everyday import variants
from orbax.checkpoint import v1 as ocp

from s5jax.train import checkpoint
from s5jax.train.build import build, load_task
from s5jax.train.checkpoint import Checkpoints, saved_steps
from s5jax.train.config import UserError
from s5jax.train.trained import read

CONFIG = tiny.config()


@pytest.fixture(scope="module")
def state():
    return build(CONFIG, load_task(CONFIG))[1]


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """Checkpoints of steps 1 to 5, of which 2 is the best."""
    workdir = tmp_path_factory.mktemp("saved")
    with Checkpoints(workdir, CONFIG) as checkpoints:
        for step in range(1, 6):
            at_step = state._replace(step=state.step + step, params=jax.tree.map(lambda x, s=step: x + s, state.params))
            checkpoints.save(at_step, {"best_step": min(step, 2), "window": {"third": 1 / 3}})
    return workdir


def test_the_two_newest_and_the_best_are_kept_bit_for_bit(saved, state):
    assert saved_steps(saved / "checkpoints") == [2, 4, 5]
    with Checkpoints(saved, CONFIG) as checkpoints:
        restored, progress = checkpoints.restore_latest(state)
    assert progress == {"best_step": 2, "window": {"third": 1 / 3}}
    assert int(restored.step) == 5
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for offset, found in (
        (5, restored),
        (2, read(saved, "best", state, CONFIG)),
        (5, read(saved, "latest", state, CONFIG)),
    ):
        expected = state._replace(step=found.step, params=jax.tree.map(lambda x, o=offset: x + o, state.params))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_nothing_there(tmp_path, state):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.restore_latest(state) is None


@variants(["flip a bit", "add", "empty"], damage=["delete", "truncate", "flip a bit", "add", "empty"])
def test_damage_to_any_file_is_noticed(saved, state, tmp_path, caplog, damage):
    newest = tmp_path / "checkpoints" / "5"
    written = saved / "checkpoints" / "5"
    files = [path for path in written.rglob("*") if path.is_file() and (path.stat().st_size or damage == "delete")]
    for path in files if damage in ("delete", "truncate", "flip a bit") else files[:1]:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
        file = newest / path.relative_to(written)
        content = bytearray(file.read_bytes())
        if damage == "delete":
            file.unlink()
        elif damage == "truncate":
            file.write_bytes(content[:-2])  # the last byte of the seal is a line feed
        elif damage == "flip a bit":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif damage == "add":
            (newest / "more").write_text("")
        else:
            shutil.rmtree(newest)
            newest.mkdir()
        if (newest / "SEAL.json").exists():
            for which in ("latest", "best"):
                with pytest.raises(UserError, match=r"checkpoint .*/5, the newest, is damaged: "):
                    read(tmp_path, which, state, CONFIG)
        else:  # it counts as one that another process is writing
            assert int(read(tmp_path, "latest", state, CONFIG).step) == 4, file
            assert int(read(tmp_path, "best", state, CONFIG).step) == 2, file
        assert newest.exists()
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert int(checkpoints.restore_latest(state)[0].step) == 4
        assert saved_steps(checkpoints.directory) == [2, 4]
        if damage != "empty":  # then there is nothing to keep
            assert f"{newest} is damaged" in caplog.text
            assert len(list((tmp_path / "checkpoints" / "damaged").iterdir())) == 1
        checkpoints.save(state._replace(step=state.step + 5), {"best_step": 2})
        checkpoints.wait()
        assert saved_steps(checkpoints.directory) == [2, 4, 5]


def test_the_former_best_outlives_a_damaged_new_one(state, tmp_path):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        for step, best in ((1, 1), (2, 1), (3, 1), (4, 4)):
            checkpoints.save(state._replace(step=state.step + step), {"best_step": best})
    assert saved_steps(tmp_path / "checkpoints") == [1, 3, 4]
    (tmp_path / "checkpoints/4/SEAL.json").write_text("{}")
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, progress = checkpoints.restore_latest(state)
        assert int(restored.step) == 3 and progress["best_step"] == 1
        assert int(checkpoints.restore(1, state).step) == 1
        (tmp_path / "checkpoints/1/SEAL.json").write_text("{}")
        with pytest.raises(UserError, match=r"checkpoints/1 cannot be read: .* of its files changed"):
            checkpoints.restore(1, state)


def test_a_checkpoint_whose_deletion_was_cut_off_counts_as_unfinished(state, tmp_path, monkeypatch, caplog):
    def killed(directory):
        raise KeyboardInterrupt

    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state._replace(step=state.step + step), {"best_step": 2})
        checkpoints.wait()
        monkeypatch.setattr(shutil, "rmtree", killed)
        checkpoints.save(state._replace(step=state.step + 3), {"best_step": 3})
        with pytest.raises(KeyboardInterrupt):
            checkpoints.wait()
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert int(checkpoints.restore_latest(state)[0].step) == 3
    assert saved_steps(tmp_path / "checkpoints") == [2, 3] and not caplog.text


def test_a_damaged_best_checkpoint_is_forgotten(saved, state, tmp_path):
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "2" / "SEAL.json").write_text("{}")
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, progress = checkpoints.restore_latest(state)
        assert int(restored.step) == 5 and progress["best_step"] is None and progress["best"] is None
        assert saved_steps(checkpoints.directory) == [4, 5]


def test_where_all_are_damaged_nothing_is_touched_and_where_none_was_finished_there_is_none(saved, state, tmp_path):
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    for path in (tmp_path / "checkpoints").glob("*/SEAL.json"):
        path.write_text("{")
    for _ in range(2):
        with Checkpoints(tmp_path, CONFIG) as checkpoints, pytest.raises(UserError, match="remove the run's directory"):
            checkpoints.restore_latest(state)
    for step in saved_steps(tmp_path / "checkpoints")[1:]:
        shutil.rmtree(tmp_path / f"checkpoints/{step}")
    (tmp_path / "checkpoints/2/SEAL.json").unlink()
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.restore_latest(state) is None
        assert saved_steps(checkpoints.directory) == []


def test_a_save_that_fails_is_not_passed_over(state, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    monkeypatch.setattr("s5jax.train.checkpoint._checksums", lambda directory: 1 / 0)
    checkpoints.save(state, {"best_step": None})
    with pytest.raises(ZeroDivisionError):
        checkpoints.wait()


def test_a_save_that_fails_names_the_step_that_is_intact(state, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path, CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.ocp, "save", full)
        checkpoints.save(state, {"best_step": None})
        with pytest.raises(UserError, match=r"No space left on device .*; there is no other yet$"):
            checkpoints.wait()
    checkpoints.save(state._replace(step=state.step + 3), {"best_step": None})
    checkpoints.wait()
    monkeypatch.setattr(checkpoint.ocp, "save", full)
    checkpoints.save(state._replace(step=state.step + 4), {"best_step": None})
    with pytest.raises(UserError, match=r"; that of step 3 is intact, the same command goes on$"):
        checkpoints.wait()


def test_a_file_in_the_place_of_the_checkpoints(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="checkpoints is a file, where checkpoints should be: move it away"):
        Checkpoints(tmp_path, CONFIG)


def test_the_former_best_stays_until_the_new_one_is_sealed(state, tmp_path, monkeypatch):
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state._replace(step=state.step + step), {"best_step": 1})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.restore_latest(state)
        monkeypatch.setattr("s5jax.train.checkpoint._checksums", lambda directory: 1 / 0)  # killed before the seal
        checkpoints.save(state._replace(step=state.step + 4), {"best_step": 4})
        with pytest.raises(ZeroDivisionError):
            checkpoints.wait()
        monkeypatch.undo()
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        restored, progress = checkpoints.restore_latest(state)
        assert int(restored.step) == 3 and progress["best_step"] == 1
        assert saved_steps(checkpoints.directory) == [1, 2, 3]


def test_a_checkpoint_of_another_config_is_refused(saved, state, tmp_path):
    """Even where it was copied into a workdir of its own: it carries its config."""
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    other = tiny.config("--config.optim.lr=0.5")
    message = (
        r"checkpoint .* belongs to another config; make these fields agree:\n  config.optim.lr: 0.004 there, 0.5 now"
    )
    with Checkpoints(tmp_path, other) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore_latest(state)
    with pytest.raises(UserError, match=message):
        read(tmp_path, "best", state, other)
    elsewhere = tiny.config("--config.task.data_dir=elsewhere", "--config.train.resident_gib=1")
    assert int(read(tmp_path, "latest", state, elsewhere).step) == 5


def test_a_checkpoint_from_before_a_field_existed_can_be_read(state, tmp_path, monkeypatch):
    stored = CONFIG.to_dict()
    del stored["mixers"]["s5"]["scan_method"], stored["model"]["residual"]
    monkeypatch.setattr(type(CONFIG), "to_dict", lambda self: stored)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, {"best_step": 0})
    monkeypatch.undo()
    assert int(read(tmp_path, "best", state, CONFIG).step) == 0
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.restore_latest(state)[1] == {"best_step": 0}


def test_a_checkpoint_of_other_arrays_is_refused(saved, state):
    """This happens when the code of a mixer has changed since."""
    decoder = state.params["decoder"]
    for changed, message in (
        (
            {**decoder, "kernel": decoder["kernel"][:, :3]},
            r"decoder/kernel: \(4, 10\) in the checkpoint, \(4, 3\) to this",
        ),
        ({**decoder, "more": decoder["bias"]}, r"decoder/more: missing in the checkpoint, \(10,\) to this model"),
        ({"kernel": decoder["kernel"]}, r"decoder/bias: \(10,\) in the checkpoint, unknown to this model"),
    ):
        other = state._replace(params={**state.params, "decoder": changed})
        with pytest.raises(UserError, match=message):
            read(saved, "latest", other, CONFIG)
        with Checkpoints(saved, CONFIG) as checkpoints, pytest.raises(UserError, match=message):
            checkpoints.restore_latest(other)


def test_arrays_are_stored_by_name(saved):
    """The checkpoint is the tree as it is, so that any program with orbax can read them."""
    with ocp.training.Checkpointer(saved / "checkpoints") as checkpoints:
        stored = checkpoints.load(5)
    assert {"step", "params/encoder/layers/0/seq/B", "params/decoder/kernel"} <= stored.keys()
    assert stored["params/encoder/layers/0/seq/B"].shape == (1, 2, 4, 2)
