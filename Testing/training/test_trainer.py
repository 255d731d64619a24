"""A training run learns, saves, validates, obeys, and says clearly why it cannot go on."""

from __future__ import annotations

import json
import math
import sys
import types
from datetime import timedelta

import pytest
import torch

from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DTrainingLib import commands
from SAMMed3DTrainingLib.options import MOST_EPOCHS, epochs_in
from SAMMed3DTrainingLib.runs.run_files import hold_lock, read_config
from SAMMed3DTrainingLib.train import click_loop, plots, run_folder, trainer, training_run
from SAMMed3DTrainingLib.train.distributed import World, join_world
from SAMMed3DTrainingLib.train.estimate import largest_batch
from SAMMed3DTrainingLib.train.plots import TensorBoard
from SAMMed3DTrainingLib.train.run_folder import RunFolder, read_events
from SAMMed3DTrainingLib.train.training_config import TrainingError, parse_training_options
from SAMMed3DTrainingLib.train.training_run import run_training
from SAMMed3DTrainingLib.train.validation import Validation, Validator

from .dataset_files import balls, write_case
from .runs import config, events, options, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of the work of one whole run."""
    work = tmp_path_factory.mktemp("finished")
    assert run_training(config(work, data)) == 0
    return work


def test_a_run_leaves_everything_that_is_promised(finished):
    folder = finished / "run"
    for name in ("sam_model_latest", "sam_model_dice_best", "sam_model_loss_best"):
        model = load_model(folder / f"{name}.pth")
        assert model.name == "vit_tiny" and model.profile.iou_head
    assert (folder / "Loss.png").stat().st_size > 5000 and (folder / "Dice.png").stat().st_size > 5000
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (
        written["preset"] == "60min"
        and written["encoder"] == "full"
        and written["lr"] == 8e-4
        and written["versions"]["torch"] == torch.__version__
    )
    kinds = [event["event"] for event in events(finished)]
    assert kinds[0] == "warning" and kinds[1] == "start" and kinds[-1] == "end"
    assert "FROM SCRATCH" in events(finished, "warning")[0]["message"]
    steps = events(finished, "step")
    assert [step["step"] for step in steps] == list(range(1, steps[0]["steps"] + 1))
    assert all(math.isfinite(step["loss"]) and step["data_s"] <= step["step_s"] for step in steps)
    validations = events(finished, "validation")
    assert [v["epoch"] for v in validations] == [0, 1, 2] and validations[0]["best"]
    assert validations[0]["nodules"] == 2 and len(validations[0]["dice"]) == 1
    assert events(finished, "end")[0]["reason"] == "finished"
    # Six nodules train once an epoch, and 30 % of all samples are empty: nine samples, batches of two.
    assert steps[0]["steps"] == 2 * 5


def judging(monkeypatch, *scores):
    """Validations give these Dice values, one for each of the three nodules, the last of them a large one."""
    judged = iter(scores)
    sizes = ("<6 mm", "<6 mm", "15-30 mm")
    monkeypatch.setattr(
        Validator, "validate", lambda self, model: Validation(tuple((d,) for d in next(judged)), sizes, 1.0)
    )


def test_best_is_what_beats_the_start_by_more_than_chance(data, finished, tmp_path, monkeypatch):
    start = finished / "run" / "sam_model_latest.pth"
    # The first epoch's gain is one nodule's alone, with a standard error as large; the second one's is everyone's.
    judging(monkeypatch, (0.5, 0.5, 0.5), (0.5, 0.5, 0.8), (0.55, 0.6, 0.65))
    assert run_training(config(tmp_path, data, "--checkpoint", str(start))) == 0
    first, second, third = events(tmp_path, "validation")
    assert "change" not in first and [v["best"] for v in (first, second, third)] == [True, False, True]
    assert second["change"] == pytest.approx(0.1) and second["change_error"] == pytest.approx(0.1)
    assert third["change_error"] == pytest.approx(0.05 / 3**0.5, abs=1e-6)
    assert third["sizes"]["<6 mm"] == {"nodules": 2, "dice": 0.575, "change": 0.075}
    message = events(tmp_path, "end")[0]["message"]
    assert "best at epoch 2: Dice 0.600, +0.100 since the start (3 validated nodules, standard error 0.029)" in message
    assert "choose the epoch" in message  # of four patients none is left for a test
    begun = events(tmp_path, "start")[0]
    written = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["split"]
    assert begun["parts"] == written and begun["caution"] == written["caution"] != ""
    assert written["val"] == {"cases": 1, "patients": 1} and written["test"] == {"cases": 0, "patients": 0}


def test_a_size_group_that_falls_is_a_warning(data, finished, tmp_path, monkeypatch):
    start = finished / "run" / "sam_model_latest.pth"
    judging(monkeypatch, (0.5, 0.5, 0.5), (0.9, 0.9, 0.4), (0.95, 0.95, 0.485))
    assert run_training(config(tmp_path, data, "--checkpoint", str(start))) == 0
    assert [v["best"] for v in events(tmp_path, "validation")] == [True, True, True]
    warnings = [event["message"] for event in events(tmp_path, "warning")]
    assert [text for text in warnings if "worse" in text] == [text for text in warnings if "epoch 1" in text]
    assert any("15-30 mm (1): -0.100" in text for text in warnings)


def test_a_run_whose_labels_changed_is_not_continued(tmp_path, capsys):
    data = write_data(tmp_path / "set")
    assert run_training(config(tmp_path, data, "--num_epochs", "1")) == 0
    write_case(data, "P1", balls((8, 12, 12), (16, 28, 28), radius_mm=4.0), seed=1)
    assert run_training(config(tmp_path, data, "--num_epochs", "1", "--resume")) == 2
    assert "set/Tr/P1" in events(tmp_path, "end")[-1]["message"]
    write_case(data, "P1", balls((8, 12, 12), (16, 28, 28), radius_mm=3.0), seed=1)
    assert run_training(config(tmp_path, data, "--num_epochs", "1", "--resume")) == 0


def test_weights_that_no_epoch_beats_stay_the_best(data, finished, tmp_path, monkeypatch):
    start = finished / "run" / "sam_model_latest.pth"
    judging(monkeypatch, (0.9, 0.9, 0.9), (0.5, 0.5, 0.5), (0.9, 0.9, 0.9))
    assert run_training(config(tmp_path, data, "--checkpoint", str(start), "--lr", "1e-3")) == 0
    assert [v["best"] for v in events(tmp_path, "validation")] == [True, False, False]
    assert "no epoch beat" in events(tmp_path, "end")[0]["message"]
    best, latest, before = (
        load_model(path).state_dict()
        for path in (*(tmp_path / "run" / f"sam_model_{n}.pth" for n in ("dice_best", "latest")), start)
    )
    assert all(torch.equal(best[name], before[name]) for name in best)
    assert any(not torch.equal(latest[name], before[name]) for name in latest)


def test_the_same_seed_gives_the_same_weights(finished, data, tmp_path):
    assert run_training(config(tmp_path, data)) == 0
    first, second = (load_model(work / "run" / "sam_model_latest.pth").state_dict() for work in (finished, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_neither_overwritten_nor_continued_as_another(finished, data, capsys):
    before = events(finished)
    assert run_training(config(finished, data)) == 2
    assert "--resume" in capsys.readouterr().out
    assert events(finished) == before and before[-1]["reason"] == "finished"  # it stays a finished run
    assert run_training(config(finished, data, "--resume", "--lr", "0.1")) == 2
    assert "--lr" in events(finished, "end")[-1]["message"]


def test_more_epochs_extend_a_run(data, tmp_path, capsys):
    assert run_training(config(tmp_path, data, "--num_epochs", "1")) == 0
    again = ["--task_name", "run", "--work_dir", str(tmp_path), "--resume"]
    assert run_training(parse_training_options([*again, "--num_epochs", "2"])) == 0
    assert [step["step"] for step in read_events(tmp_path / "run") if step["event"] == "step"] == list(range(1, 11))
    assert [v["epoch"] for v in events(tmp_path, "validation")] == [0, 1, 2]
    assert run_training(parse_training_options([*again, "--num_epochs", "1"])) == 2
    assert "--num_epochs 2 then, 1 now" in events(tmp_path, "end")[-1]["message"]


WRONG_KINDS = (
    ('{"lr": "fast"}', "--lr"),
    ('{"lr": false}', "lr cannot be false"),
    ('{"augment": "no"}', 'augment cannot be "no"'),
    ('{"fold": {}}', "fold cannot be {}"),
    ('{"preset": {"a": 1}}', "preset cannot be"),
    ('{"num_epochs": [1]}', "num_epochs cannot be [1]"),
    ('{"data": [null]}', "data cannot be [null]"),
    ('{"labels": ["1", "--seed=3"]}', "labels cannot be"),
)


def test_a_run_is_continued_and_repeated_with_its_own_options(data, finished, tmp_path, capsys):
    first = config(finished, data)
    again = parse_training_options(["--task_name", "run", "--work_dir", str(finished), "--resume", "--json"])
    file = str(finished / "run" / "config.json")
    other = parse_training_options(["--task_name", "other", "--config", file, "--lr", "0.01"])
    written = json.loads((finished / "run" / "config.json").read_text(encoding="utf-8"))
    assert written["matrix_library"] in ("torch", "onednn")  # what was decided, not what was asked for
    for name in ("batch_size", "val_clicks", "empty_share", "model_type", "num_epochs"):
        assert getattr(again, name) == getattr(other, name) == getattr(first, name)
    for each in (again, other):
        assert each.matrix_library == written["matrix_library"] and each.preset == "60min"
    assert (again.resume, again.json, again.lr) == (True, True, 8e-4)
    assert (other.resume, other.json, other.lr, other.work_dir) == (False, False, 0.01, str(finished.absolute()))
    for content, message in (("{", "cannot be read"), ("[]", "no configuration"), *WRONG_KINDS):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(SystemExit) as ended:
            parse_training_options(["--task_name", "other", "--config", str(tmp_path / "bad.json")])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    (tmp_path / "bad.json").write_text('{"learning": 1}')
    with pytest.raises(SystemExit):
        parse_training_options(["--task_name", "other", "--config", str(tmp_path / "bad.json")])
    assert "no option here: learning" in capsys.readouterr().err


def test_the_log_of_several_processes_is_their_mean(monkeypatch):
    def all_reduce(tensor, op):  # the other process has 3 of the first figure, and none of the second
        tensor += torch.tensor([[3.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    told = World(0, 2, torch.device("cpu")).mean({"a": 1.0, "b": 2.0, "c": math.nan})
    assert (told["a"], told["b"]) == (2.0, 2.0) and math.isnan(told["c"])


def test_minutes_decide_the_epochs_once(data, tmp_path, monkeypatch):
    assert epochs_in(5, 60.0, 24.0) == 10 and epochs_in(5, 400.0, 24.0) == 1 and epochs_in(60, 0.0, 1e-9) == MOST_EPOCHS
    save_checkpoint(build_model("vit_tiny"), tmp_path / "start.pth")
    measured = []
    cost = types.SimpleNamespace(steps=5, step_s=3.0, validation_s=9.0, encoding_s=0.0)
    monkeypatch.setattr(training_run, "estimate", lambda *unused: measured.append(1) or cost)
    words = options(tmp_path, data, "--checkpoint", str(tmp_path / "start.pth"), "--preset", "quick")
    del words[words.index("--num_epochs") : words.index("--num_epochs") + 2]
    assert run_training(parse_training_options([*words, "--minutes", "1"])) == 0  # two of 24 s fit
    written = read_config(tmp_path / "run")
    assert (written["num_epochs"], written["minutes"], written["preset"]) == (2, 1.0, "5min") and measured == [1]
    again = parse_training_options(["--task_name", "run", "--work_dir", str(tmp_path), "--resume"])
    assert again.num_epochs == 2 and run_training(again) == 0 and measured == [1]


def test_a_run_that_gets_no_better_ends_before_its_time(data, finished, tmp_path, monkeypatch):
    start = finished / "run" / "sam_model_latest.pth"
    judging(monkeypatch, (0.5,) * 3, (0.6,) * 3, *[(0.55,) * 3] * 9)
    more = ("--checkpoint", str(start), "--num_epochs", "9", "--patience", "2")
    assert run_training(config(tmp_path, data, *more)) == 0
    assert len(events(tmp_path, "validation")) == 4
    end = events(tmp_path, "end")[0]
    assert end["reason"] == "finished" and "ended after 3 of 9 epochs, the last 2 no better" in end["message"]


def test_runs_of_former_presets_are_continued_as_they_were(data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"preset": "quick", "num_epochs": 20, "lr": 2e-4}))
    again = parse_training_options(["--task_name", "run", "--work_dir", str(tmp_path), "--resume"])
    assert (again.encoder, again.num_epochs, again.resolved(False).preset) == ("frozen", 20, "5min")


def test_one_process_per_run(finished, data, capsys):
    before = events(finished)
    with hold_lock(finished / "run"):
        assert run_training(config(finished, data, "--resume")) == 2
    assert "another process" in capsys.readouterr().out
    assert events(finished) == before  # whoever follows the other process must not read that it failed


def test_pause_and_stop_through_the_control_file(data, tmp_path, monkeypatch):
    asked = iter(["run", "pause", "pause", "run", "run", "stop"])
    monkeypatch.setattr(RunFolder, "command", lambda self: next(asked))
    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    assert run_training(config(tmp_path, data)) == 0
    kinds = [event["event"] for event in events(tmp_path) if event["event"] not in ("start", "warning", "reading")]
    assert kinds == ["validation", "step", "saved", "paused", "resumed", "step", "step", "saved", "end"]
    assert events(tmp_path, "end")[0]["reason"] == "stopped"
    monkeypatch.undo()
    assert run_training(config(tmp_path, data, "--resume")) == 0
    assert [step["step"] for step in read_events(tmp_path / "run") if step["event"] == "step"] == list(range(1, 11))


def test_pause_is_heard_while_embeddings_are_computed(data, tmp_path, monkeypatch):
    asked = iter(["run", "pause", "pause", "run", "pause", "stop"])
    monkeypatch.setattr(RunFolder, "command", lambda self: next(asked, "stop"))
    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    save_checkpoint(build_model("vit_tiny"), tmp_path / "start.pth")
    run = config(tmp_path, data, "--checkpoint", str(tmp_path / "start.pth"), "--encoder", "frozen")
    assert run_training(run) == 0
    kinds = [event["event"] for event in events(tmp_path) if event["event"] not in ("start", "warning", "reading")]
    assert kinds[:6] == ["encoding", "encoding", "paused", "resumed", "encoding", "paused"]
    assert "resumed" not in kinds[6:] and "step" not in kinds
    assert events(tmp_path, "end")[0]["reason"] == "stopped"


def test_the_control_file_is_what_it_says(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.command() == "run"
    for word, meaning in (("pause", "pause"), (" STOP\n", "stop"), ("nonsense", "run"), ("", "run")):
        (tmp_path / "run" / "control").write_text(word)
        assert folder.command() == meaning
    folder.set_command("stop")
    assert folder.command() == "stop"


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(data, tmp_path, monkeypatch):
    losses = iter([1.0] * 7 + [math.nan] * 9)
    loss = click_loop.mask_loss
    monkeypatch.setattr(
        click_loop,
        "mask_loss",
        lambda *given, **more: loss(*given, **more) * (next(losses, 1.0) if torch.is_grad_enabled() else 1.0),
    )
    assert run_training(config(tmp_path, data, "--save_minutes", "0")) == 2
    end = events(tmp_path, "end")[0]
    assert end["reason"] == "failed" and "not finite" in end["message"] and "stays" in end["message"]
    state = torch.load(tmp_path / "run" / "training_state.pth", weights_only=True)
    assert state["progress"]["update"] >= 1
    assert all(torch.isfinite(value).all() for value in state["network"]["model"].values())


def test_a_full_disk_is_named_and_the_older_state_stays(data, tmp_path, monkeypatch):
    whole_file, calls = run_folder.whole_file, []

    def full_later(path):
        calls.append(path)
        if len(calls) > 2:
            raise InputError(f"{path} could not be written: No space left on device; nothing was changed")
        return whole_file(path)

    monkeypatch.setattr(run_folder, "whole_file", full_later)
    assert run_training(config(tmp_path, data, "--save_minutes", "0")) == 2
    assert "No space left" in events(tmp_path, "end")[0]["message"]
    monkeypatch.undo()
    assert run_training(config(tmp_path, data, "--save_minutes", "0", "--resume")) == 0


def test_a_frozen_encoder_leaves_the_decoder_to_learn_from_embeddings_computed_once(data, tmp_path, monkeypatch):
    torch.manual_seed(3)
    save_checkpoint(build_model("vit_tiny"), tmp_path / "start.pth")
    encoded = []
    forward = trainer.EmbeddingBank.fill

    def fill(self, batches, progress=None):
        forward(self, batches, progress)
        encoded.append(len(self))
        monkeypatch.setattr(self._model.image_encoder, "forward", None)  # from here on nobody encodes

    monkeypatch.setattr(trainer.EmbeddingBank, "fill", fill)
    run = config(tmp_path, data, "--checkpoint", str(tmp_path / "start.pth"), "--encoder", "frozen")
    assert run_training(run) == 0
    assert encoded == [2 * 9]
    paths = tmp_path / "start.pth", tmp_path / "run" / "sam_model_latest.pth"
    before, after = (load_model(path).state_dict() for path in paths)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"prompt_encoder", "mask_decoder"}
    assert events(tmp_path, "encoding")[-1] == pytest.approx({**events(tmp_path, "encoding")[-1], "done": 18})


def test_a_small_cache_is_said(data, tmp_path):
    torch.manual_seed(3)
    save_checkpoint(build_model("vit_tiny"), tmp_path / "start.pth")
    run = config(
        tmp_path, data, "--checkpoint", str(tmp_path / "start.pth"), "--encoder", "frozen", "--cache_gb", "0.0005"
    )
    assert run_training(run) == 0
    assert "--cache_gb" in events(tmp_path, "warning")[0]["message"]
    assert len(events(tmp_path, "step")) == 10


def test_standard_adapts_the_encoder_by_lora(data, tmp_path):
    torch.manual_seed(3)
    save_checkpoint(build_model("vit_tiny"), tmp_path / "start.pth")
    run = config(
        tmp_path, data, "--checkpoint", str(tmp_path / "start.pth"), "--preset", "standard", "--num_epochs", "1"
    )
    assert run_training(run) == 0
    paths = tmp_path / "start.pth", tmp_path / "run" / "sam_model_latest.pth"
    before, after = (load_model(path).state_dict() for path in paths)
    weight = "image_encoder.blocks.0.mlp.lin1.weight"
    change = (after[weight] - before[weight]).double()
    assert change.any() and torch.linalg.matrix_rank(change, rtol=1e-3) <= 8


def test_accumulated_batches_are_one_large_batch(data, tmp_path, monkeypatch):
    """Nine samples in groups of 2 + 2, 2 + 2 and a tail of 1, or in batches of 4, 4 and 1: the same updates."""
    monkeypatch.setattr(trainer, "draw_click_count", lambda rng: 2)
    begun = build_model("vit_tiny")
    save_checkpoint(begun, tmp_path / "start.pth")
    common = ("--checkpoint", str(tmp_path / "start.pth"), "--preset", "full", "--num_epochs", "1", "--ema", "0")
    for name, batch, accumulated in (("large", 4, 1), ("small", 2, 2)):
        more = ("--batch_size", str(batch), "--accumulation_steps", str(accumulated))
        assert run_training(config(tmp_path, data, *common, *more, name=name)) == 0
    large, small = (load_model(tmp_path / name / "sam_model_latest.pth").state_dict() for name in ("large", "small"))
    start = begun.state_dict()
    moved, apart = (sum(float((large[n] - other[n]).square().sum()) for n in large) ** 0.5 for other in (start, small))
    assert moved > 0 and apart < 0.02 * moved
    state = torch.load(tmp_path / "small" / "training_state.pth", weights_only=True)
    assert state["progress"]["update"] == 3


def test_dry_run_estimates_and_leaves_no_weights(data, tmp_path, capsys):
    assert run_training(config(tmp_path, data, "--dry_run")) == 0
    text = capsys.readouterr().out
    assert "10 steps of 2" in text and "million parameters learn" in text and "a step" in text
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--task_name", "a/b"), "task_name"),
        (("--task_name", "x:y"), "task_name"),
        (("--lr", "-1"), "--lr"),
        (("--empty_share", "0.6", "--replay", "0.5"), "nothing"),
        (("--data", "nowhere"), "not a folder"),
        (("--device", "cuda:77"), "CUDA"),
        (("--fold", "3"), "folds"),
        (("--seed", "-1"), "--seed"),
        (("--weight_decay", "-0.1"), "--weight_decay"),
        (("--clip", "0"), "--clip"),
        (("--lr", "inf"), "--lr"),
        (("--decoder_lr", "-1"), "--decoder_lr"),
        (("--task_name", "x" * 300), "--work_dir"),
    ],
)
def test_what_cannot_be_is_refused_with_a_message(data, tmp_path, capsys, more, message):
    assert run_training(config(tmp_path, data, *more)) == 2
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [("--multi",), ("--precision", "bogus")])
def test_options_are_written_out_and_known(data, tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as ended:
        config(tmp_path, data, *wrong)
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err


def test_scripts_of_sam_med3d_keep_working(data, tmp_path, capsys):
    old = ("--click_type", "random", "--multi_click", "--img_size", "128", "--allow_partial_weight", "--seed", "5")
    assert config(tmp_path, data, *old) == config(tmp_path, data, "--seed", "5")
    told = capsys.readouterr().err
    assert all(f"{name} has no effect" in told for name in old if name.startswith("--") and name != "--seed")


def test_the_batch_is_as_large_as_the_memory_allows(data, tmp_path):
    gb = 2**30
    assert largest_batch(3 * gb, 4 * gb, 20 * gb, 32) == 8  # 2 GB and 1 GB a sample: 14 fit into 16 GB
    assert largest_batch(3 * gb, 4 * gb, 200 * gb, 32) == 32
    assert largest_batch(3 * gb, 4 * gb, 1 * gb, 32) == 1
    assert largest_batch(3 * gb, 4 * gb, None, 32) == largest_batch(0, 0, gb, 32) == 4
    assert run_training(config(tmp_path, data, "--batch_size", "0", "--num_epochs", "1")) == 0
    taken = read_config(tmp_path / "run")["batch_size"]
    assert taken >= 1 and taken & (taken - 1) == 0
    assert events(tmp_path, "step")[0]["steps"] == -(-9 // taken)


def test_apple_gpus_are_refused_with_the_reason(data, tmp_path, capsys):
    assert run_training(config(tmp_path, data, "--device", "mps")) == 2
    assert "no gradient there" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_states_of_earlier_versions_go_on(data, tmp_path):
    """They know neither what the validated nodules began with nor options that came later."""
    assert run_training(config(tmp_path, data, "--num_epochs", "1")) == 0
    path = tmp_path / "run" / "training_state.pth"
    state = torch.load(path, weights_only=True)
    for name in ("start_scores", "best_epoch", "best_change", "best_error"):
        del state["progress"][name]
    del state["config"]["test_fraction"]
    for group in state["optimizer"]["param_groups"]:
        del group["initial_lr"]
    torch.save(state, path)
    assert run_training(config(tmp_path, data, "--resume")) == 0
    assert events(tmp_path, "end")[-1]["reason"] == "finished" and len(events(tmp_path, "validation")) == 3


def test_processes_wait_for_the_first_one_to_unpack_a_large_data_set(monkeypatch):
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    joined = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *given, **more: joined.update(more))
    assert join_world(torch.device("cpu")).rank == 1
    assert joined["timeout"] >= timedelta(hours=12)

    def nobody_there(*unused, **more):
        raise RuntimeError("address already in use")

    monkeypatch.setattr("torch.distributed.init_process_group", nobody_there)
    with pytest.raises(TrainingError, match="--port"):
        join_world(torch.device("cpu"))


def test_what_torchrun_started_does_not_launch_again(data, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("SAMMed3DTrainingLib.train.training_run.launch_training", None)
    assert commands.train(options(tmp_path, data, "--multi_gpu", "--gpu_ids", "0", "1", "--lr", "-1")) == 2


def test_processes_without_a_sample_of_their_own_repeat_others():
    keys = [(0, 0), (0, 1)]
    shares = [World(rank, 5, torch.device("cpu")).share(keys) for rank in range(5)]
    assert [len(share) for share in shares] == [1] * 5
    assert sorted({key for share in shares for key in share}) == keys


def test_a_torn_line_does_not_swallow_the_next_event(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write("start", step=0)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    for _ in range(2):
        RunFolder(tmp_path).write("start", resumed=True, step=0)
    assert [event["event"] for event in read_events(tmp_path)] == ["start"] * 3
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 4


class _Writer:
    def __init__(self, folder, purge_step):
        self.said = [("open", purge_step)]
        _Writer.last = self

    def add_scalar(self, name, value, step):
        self.said.append((name, value, step))

    def flush(self):
        self.said.append(("flush",))


def test_tensorboard_gets_the_figures(tmp_path, monkeypatch):
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = _Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    heard = TensorBoard(tmp_path)
    heard.hear({"event": "end", "reason": "failed"})  # a run that never began leaves nothing
    heard.hear({"event": "step", "time": 1.0, "step": 7, "loss": 0.5, "dice_first": None})
    heard.hear({"event": "end", "reason": "finished", "message": ""})
    assert _Writer.last.said == [("open", 7), ("step/loss", 0.5, 7), ("flush",)]


class _Entry:
    """An entry point of another package, whose logger fails at the first step."""

    name = "others"
    heard: list[str] = []

    @classmethod
    def load(cls):
        def make(folder):
            assert folder.name == "run"

            def hear(event):
                cls.heard.append(event["event"])
                if event["event"] == "step":
                    raise OSError("no network")

            return hear

        return make


def test_other_packages_may_hear_of_a_run_and_never_end_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "entry_points", lambda group: [_Entry] if group == "sammed3d.loggers" else [])
    assert run_training(config(tmp_path, data, "--num_epochs", "1", "--log_to", "others")) == 0
    assert _Entry.heard.count("step") == 1 and "start" in _Entry.heard and "end" not in _Entry.heard
    assert "--log_to others has failed and hears no more: no network" in capsys.readouterr().out
    assert run_training(config(tmp_path, data, "--log_to", "nobody", name="next")) == 2
    assert "there are tensorboard, others" in capsys.readouterr().out
    assert not (tmp_path / "next").exists()


def test_a_wrong_checkpoint_is_named(data, tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    assert run_training(config(tmp_path, data, "--checkpoint", str(tmp_path / "bad.pth"))) == 2
    assert "bad.pth" in capsys.readouterr().out


def test_a_work_folder_that_cannot_be_made(data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run_training(config(tmp_path / "file", data)) == 2
    assert "--work_dir" in capsys.readouterr().out
