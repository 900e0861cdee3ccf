"""Files of a run that were lost, cut off, replaced or planted: each is noticed, in a line or two."""

import errno
import json
import os
import shutil

import pytest
import tiny

from s5jax.train import log, loop, workdir
from s5jax.train.build import build, load_task
from s5jax.train.checkpoint import Checkpoints, saved_steps
from s5jax.train.config import UserError
from s5jax.train.trained import read

CONFIG = tiny.config("--config.train.steps=9", "--config.train.warmup_steps=2")


@pytest.fixture(scope="module")
def state():
    return build(CONFIG, load_task(CONFIG))[1]


@pytest.fixture
def saved(state, tmp_path):
    """Checkpoints of steps 1 to 4, of which 1, 3 and 4 remain: 1 is the best."""
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(state._replace(step=state.step + step), {"best_step": 1, "best": {}})
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json", "data.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "null", "\0\0", '{"steps": 3}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"/{name} is damaged \(.*\): delete it, and result.json if") as error:
        workdir.read_json(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_what_was_damaged_is_written_again_by_the_same_command(tmp_path):
    result = loop.train(CONFIG, tmp_path)
    for name in ("config.json", "run.json", "result.json"):
        (tmp_path / "result.json").unlink(missing_ok=True)
        (tmp_path / name).write_text("")
        with pytest.raises(UserError, match=rf"{name} is damaged"):
            loop.train(CONFIG, tmp_path)
        (tmp_path / name).unlink()
        assert loop.train(CONFIG, tmp_path) == result
        assert json.loads((tmp_path / name).read_text())


@pytest.mark.parametrize("line", ["[1]", "{}", "3", '{"epoch": 1}', '{"step": null}', "\0\0\0"])
def test_a_line_of_metrics_that_is_not_a_report(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    before = file.read_text()
    with pytest.raises(UserError, match=r"metrics\.jsonl: line \d is not a report of metrics: delete it"):
        log._reopen(file, 2)
    assert file.read_text() == before


def test_a_best_checkpoint_that_is_lost_is_not_replaced_by_another(saved, state, caplog):
    shutil.rmtree(saved / "checkpoints/1")
    with pytest.raises(UserError, match="has no best checkpoint that can be read"):
        read(saved, "best", state, CONFIG)
    with Checkpoints(saved, CONFIG) as checkpoints:
        assert checkpoints.restore_latest(state)[1] == {"best_step": None, "best": None}
    assert "checkpoint 1, the best, is missing or damaged" in caplog.text


def test_a_damaged_newest_checkpoint_is_not_replaced_by_another(saved, state):
    (saved / "checkpoints/4/SEAL.json").write_text("{}")
    for which in ("best", "latest"):
        with pytest.raises(UserError, match=r"checkpoint .*/4, the newest, is damaged: .*; move it away to use"):
            read(saved, which, state, CONFIG)


def test_the_checkpoints_of_a_finished_run_are_those_of_its_result(saved, state):
    (saved / "result.json").write_text('{"best_step": 5, "steps": 6}')
    for which, step in (("best", 5), ("latest", 6)):
        with pytest.raises(UserError, match=rf"checkpoint .*/{step}, the {which}, is missing or damaged"):
            read(saved, which, state, CONFIG)


def test_a_finished_run_without_its_config_is_not_taken_for_that_of_another(tmp_path):
    result = loop.train(CONFIG, tmp_path)
    (tmp_path / "config.json").unlink()
    other = tiny.config("--config.train.steps=9", "--config.train.warmup_steps=2", "--config.optim.lr=0.5")
    with pytest.raises(UserError, match=r"checkpoint .* belongs to another config; .*\n.*optim.lr: 0.004 there, 0.5"):
        loop.train(other, tmp_path)
    assert loop.train(CONFIG, tmp_path) == result and (tmp_path / "config.json").exists()


def test_checkpoints_know_the_hash_of_their_data(state, tmp_path):
    with Checkpoints(tmp_path, CONFIG, {"sha256": "a"}) as checkpoints:
        checkpoints.save(state, {"best_step": 0, "best": {}})
    for data in ({"sha256": "a"}, {}, None):
        assert read(tmp_path, "latest", state, CONFIG, data)
        with Checkpoints(tmp_path, CONFIG, data or None) as checkpoints:
            assert checkpoints.restore_latest(state)
    with pytest.raises(UserError, match=r"checkpoint .*/0 was trained on other data than task digits gives now"):
        read(tmp_path, "latest", state, CONFIG, {"sha256": "b"})
    with Checkpoints(tmp_path, CONFIG, {"sha256": "b"}) as others, pytest.raises(UserError, match="other data"):
        others.restore_latest(state)


def test_a_workdir_that_was_moved_is_not_made_again(state, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with Checkpoints(folder, CONFIG) as checkpoints:
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=rf"{folder} is gone, moved or removed"):
            checkpoints.save(state, {"best_step": 0, "best": {}})
    assert not folder.exists()


def test_where_all_seals_are_lost_nothing_is_deleted(saved, state):
    for seal in (saved / "checkpoints").glob("*/SEAL.json"):
        seal.unlink()
    with Checkpoints(saved, CONFIG) as checkpoints:
        with pytest.raises(UserError, match=r"no checkpoint in .* is intact; remove the run's directory to start over"):
            checkpoints.restore_latest(state)
        assert saved_steps(checkpoints.directory) == [1, 3, 4]


def test_a_planted_link_is_not_followed(tmp_path):
    target, folder = tmp_path / "precious", tmp_path / "run"
    target.write_text("mine")
    folder.mkdir()
    (folder / ".lock").symlink_to(target)
    with pytest.raises(UserError, match=r"run cannot be written to: .*\.lock"), workdir.claim(folder, CONFIG):
        pass
    for name in ("config.json.tmp", "metrics.jsonl.tmp"):
        (folder / name).symlink_to(target)
    workdir.write_json(folder / "config.json", {})
    log._reopen(folder / "metrics.jsonl", 0).close()
    assert target.read_text() == "mine" and not (folder / "config.json").is_symlink()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with workdir.claim(tmp_path, CONFIG):
        assert capsys.readouterr().out.startswith(f"warning: {tmp_path} cannot be locked ({os.strerror(code)})")


def test_fields_that_change_no_number_may_differ(state, saved):
    other = tiny.config("--config.train.steps=9", "--config.train.warmup_steps=2", "--config.log.every_steps=7")
    assert workdir.differences(CONFIG, other) == ""
    with Checkpoints(saved, other) as checkpoints:
        assert int(checkpoints.restore_latest(state)[0].step) == 4


def test_a_workdir_without_a_checkpoint_belongs_to_no_config(tmp_path):
    other = tiny.config("--config.optim.lr=0.5")
    workdir.record(tmp_path, CONFIG, {"sha256": "of other data"})
    with workdir.claim(tmp_path, other):
        workdir.record(tmp_path, other, None)
        assert not (tmp_path / "data.json").exists()
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    with pytest.raises(UserError, match="belongs to another config"), workdir.claim(tmp_path, CONFIG):
        pass


def test_a_link_to_nothing_is_called_so(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a link to nothing"), workdir.claim(tmp_path / "run", CONFIG):
        pass


def test_another_number_of_cores_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    run = workdir.describe_run(tmp_path, CONFIG, {}, {}, 1)
    assert run["cores"] == 2 and run["changed"] == []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    (changed,) = workdir.describe_run(tmp_path, CONFIG, {}, {}, 1)["changed"]
    assert changed.startswith("the number of cores (2, now 1)")
    assert workdir.read_json(tmp_path / "run.json")["resumed"][0]["cores"] == 1


def test_a_folder_that_is_removed_while_it_is_claimed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(workdir.fcntl, "flock", lambda *_: shutil.rmtree(folder))
    with pytest.raises(UserError, match="run is in use by another process"), workdir.claim(folder, CONFIG):
        pass
