"""A bundle: what is in it and what is not, and that it is read like the run that it was made of."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from remctl.config import config_hash, from_yaml, resolve, to_yaml
from remctl.dream import small
from remctl.errors import UserError
from remctl.exchange import agreement, bundle, card, checking
from remctl.exchange.private import public_command, public_start, refuse_places
from remctl.runner import agent_of
from remctl.runs import provenance
from remctl.runs.layout import RunFolder
from remctl.train.evaluate import as_steps, play
from remctl.train.loading import load_agent
from remctl.train.seeding import Randomness
from tests.exchange.bundles import seal
from tests.exchange.conftest import refused

FILES = (
    "README.md", "agent.safetensors", "bundle.json", "config.yaml", "episodes.jsonl", "media/dream.webp",
    "media/episode.webp", "media/reconstructions.png", "metrics.jsonl", "provenance.json", "result.json",
)  # fmt: skip

ADVICE = re.compile(r"warm it up|train (it|M)|mend M|raise controller")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is in it


def test_it_has_all_that_a_check_needs(finished: Path, exported: Path) -> None:
    found = contents(exported)
    assert tuple(found) == FILES
    manifest = json.loads(found["bundle.json"])
    assert manifest["format"] == 1
    assert manifest["files"].keys() == found.keys() - {"bundle.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": hashlib.sha256(found[name]).hexdigest(), "bytes": len(found[name])}
    for name in ("config.yaml", "result.json", "metrics.jsonl", "episodes.jsonl"):
        assert found[name] == (finished / name).read_bytes()
    assert len(found["media/episode.webp"]) < 500_000
    assert sum(map(len, found.values())) < 3_000_000
    assert not list(exported.parent.glob(".tmp-*"))


def test_the_weights_are_those_of_the_run(finished: Path, exported: Path) -> None:
    there, here = load_agent(RunFolder(finished)), load_agent(RunFolder(exported))
    assert (there.epoch, there.config_hash, there.precisions) == (here.epoch, here.config_hash, here.precisions)
    for component, tensors in there.agent.items():
        assert here.agent[component].keys() == tensors.keys()
        assert all(torch.equal(tensor, here.agent[component][name]) for name, tensor in tensors.items())


def test_the_video_takes_ten_seconds_of_the_episodes_that_were_tested(finished: Path, exported: Path) -> None:
    lines = [json.loads(line) for line in (finished / "episodes.jsonl").read_text().splitlines()]
    lengths = [line["length_steps"] for line in lines if line["kind"] == "final"]
    with Image.open(exported / "media/episode.webp") as video:
        assert video.n_frames == sum(lengths) <= small.NUM_FRAMES
    assert small.num_episodes_shown([small.NUM_FRAMES, 5]) == 1
    assert small.num_episodes_shown([small.NUM_FRAMES - 1, 5, 5]) == 2
    assert small.num_episodes_shown([]) == 1


def test_a_video_is_made_as_small_as_asked_for(finished: Path) -> None:
    with agent_of(finished, "cpu") as (agent, *_):
        steps = as_steps(play(agent, 3, Randomness(0, 4, "final"), lambda _: None, True, num_kept=3))
        whole = small.dream_video(agent, steps, Randomness(0, 4, "media"), "abc", "Catch", 10**9)
        for share in (2, 10):
            made = small.dream_video(agent, steps, Randomness(0, 4, "media"), "abc", "Catch", len(whole) // share)
            assert len(made) <= len(whole) // share


def test_the_card_says_what_it_is_and_how_to_check_it(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    result = json.loads((exported / "result.json").read_text())
    low, high = agreement.interval(result["returns"])
    for words in (
        "# REM on Catch", "variant `rem`", "preset `quick`", "seed 0", f"**{result['score']:.4g}**", "5 test episodes",
        f"95% interval {low:.4g} to {high:.4g}", "140 real steps, 4 epochs", "1 thread, fp32", "remctl train --game Catch",
        config_hash(from_yaml(exported / "config.yaml")), "MIT", "remctl eval DIR", "remctl import DIR --out",
        "remctl config show --from DIR",
    ):  # fmt: skip
        assert words in text, words
    for line in text.splitlines():
        if line.startswith("!["):
            assert (exported / line.partition("(")[2].rstrip(")")).is_file()


def test_the_card_gives_the_known_scores_of_a_game() -> None:
    known = [card._known_scores(resolve(game, "quick")) for game in ("Pong", "gym:bsuite/catch-v0", "gym:X-v0")]
    assert known[:1] == [{"random play": "-20.7", "human": "14.6"}]
    assert known[1:] == [{"random play": "-0.6", "optimal play": "1"}, {}]
    other = resolve("gym:bsuite/catch-v0", "quick", sets=["environment.arguments.rows=20"])
    assert card._known_scores(other) == {}


# --- what is not in it


def test_nothing_names_the_machine_or_its_user(
    cli: Callable, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu17.alices-lab.example")
    monkeypatch.setenv("SLURM_JOB_ID", "8812345")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "alices-cluster")
    run = tmp_path / "home/alice/run"
    shutil.copytree(finished, run)
    home = tmp_path / "home/alice"
    monkeypatch.setenv("HOME", str(home))
    line = [
        f"{home}/venv/bin/remctl",
        "train",
        "--out",
        f"{home}/runs",
        f"--config={home}/a.yaml",
        "~alice/x",
        "../../alice/y",
    ]
    provenance.append(RunFolder(run), provenance.collect([*line, "--set", f"a.b=[{home}/level, 3]"]))
    assert "gpu17" in (run / "provenance.json").read_text()
    assert cli("export", run, "--out", tmp_path / "out").status == 0
    for name, data in contents(tmp_path / "out").items():
        for private in ("gpu17", "alice", "8812345", str(home), str(tmp_path), tempfile.gettempdir() + "/"):
            assert private.encode() not in data, (name, private)
    entry = json.loads((tmp_path / "out/provenance.json").read_text())[-1]
    assert entry["command"] == [
        "remctl", "train", "--out", "runs", "--config=a.yaml", "x", "y", "--set", "a.b=[level, 3]"
    ]  # fmt: skip
    assert entry["machine"].keys() == {"platform", "cpu", "num_cores", "num_cores_usable", "ram_mb"}
    assert entry["packages"]["torch"]


def test_commands_keep_what_is_no_place() -> None:
    kept = ["remctl", "train", "--game", "gym:ALE/Pong-v5", "--out", "runs/mine", "--set=a.b=0.5", "--set", "c=[1, 2]"]
    assert public_command(["/usr/bin/remctl", *kept[1:]]) == kept
    assert public_command(["x", "/a b/c, d", "--out=/", "a/../../b", "f=~/g/h"]) == [
        "remctl",
        "c, d",
        "--out=.",
        "b",
        "f=h",
    ]
    about = {"platform": "Linux-5.4.0-alices-x86_64-with-glibc2.31", "hostname": "h"}
    assert public_start({"machine": about, "user": "alice"}) == {"machine": {"platform": "Linux x86_64"}}


def test_a_place_is_known_as_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/tmp")
    refuse_places({"README.md": "runs/tmp /tmpx ~/tmp"})
    for text in ("--out=/tmp", "'/tmp/x'", "at /tmp."):
        with pytest.raises(UserError, match=r"README\.md has a path"):
            refuse_places({"README.md": text})


def test_a_path_in_the_configuration_is_refused(cli: Callable, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("arguments: {}", f"arguments: {{level: {tmp_path}/level}}"))
    refused(cli("export", run, "--out", tmp_path / "out"), "config.yaml has a path of this machine in it")
    assert not (tmp_path / "out").exists()


# --- it is read like a run


def test_eval_plays_the_final_test_again_to_the_digit(cli: Callable, exported: Path) -> None:
    before = contents(exported)
    done = cli("eval", exported)
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1].endswith("they agree: every return is identical")
    shown = json.loads(cli("eval", exported, "--json").out)
    result = json.loads(before["result.json"])
    assert (shown["returns"], shown["score"], shown["agrees"]) == (result["returns"], result["score"], True)
    assert shown["stored"]["interval"] == list(agreement.interval(result["returns"]))
    other = json.loads(cli("eval", exported, "--seed", 3, "--episodes", 7, "--json").out)
    assert (len(other["returns"]), other["evaluation_seed"], other["stored"]["num_episodes"]) == (7, 3, 5)
    assert contents(exported) == before


def test_eval_takes_the_kind_of_device_and_the_threads_of_the_run(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    threads: list[int] = []

    @contextmanager
    def noted(path: Path, device: str) -> Iterator[Any]:
        devices.append(device)
        with agent_of(path, "cpu") as found:
            yield found

    monkeypatch.setattr(checking, "agent_of", noted)
    monkeypatch.setattr(checking.threads, "use", threads.append)
    for given in ("auto", "cuda"):
        checking.check(exported, 1, given, None)
    result = json.loads((exported / "result.json").read_text())
    result["device"] = {"type": "cuda", "name": "GPU"}
    (exported / "result.json").write_text(json.dumps(result))
    seal(exported)
    checking.check(exported, 1, "auto", None)
    assert devices == ["cpu", "cuda", "auto"]
    assert threads == [1] * 5  # at each start, and then as many as the run had, unless that was on a GPU


def test_eval_says_so_and_fails_if_the_scores_do_not_agree(cli: Callable, exported: Path) -> None:
    result = json.loads((exported / "result.json").read_text()) | {"returns": [40.0] * 5, "score": 40.0}
    (exported / "result.json").write_text(json.dumps(result))
    start = json.loads((exported / "provenance.json").read_text())
    start[-1]["packages"]["torch"] = "1.0"
    (exported / "provenance.json").write_text(json.dumps(start))
    seal(exported)
    done = cli("eval", exported)
    assert done.status == 1
    assert "stored 40 (95% interval 40 to 40, 5 episodes): they do not agree" in done.out.splitlines()[-1]
    assert f"versions differ: torch 1.0 there, {torch.__version__} here" in done.out.splitlines()[-1]
    assert json.loads(cli("eval", exported, "--json").out)["agrees"] is False


def test_two_tests_of_one_agent_agree_and_of_two_agents_do_not() -> None:
    coin, other = [1.0, -1.0] * 50, [1.0, -1.0, -1.0, -1.0] * 25
    assert agreement.compare(coin, list(reversed(coin))).agrees
    assert agreement.compare(coin, [1.0] * 52 + [-1.0] * 48).agrees
    assert not agreement.compare(coin, other).agrees
    assert not agreement.compare([1.0] * 5, [-1.0] * 5).agrees
    assert agreement.compare([1.0] * 5, [1.0] * 5) == (True, 1.0, True)
    low, high = agreement.interval(coin)
    assert (low, high) == (pytest.approx(-0.2, abs=0.03), pytest.approx(0.2, abs=0.03))


def test_inspect_writes_elsewhere_and_advises_no_training(cli: Callable, exported: Path, tmp_path: Path) -> None:
    before = contents(exported)
    for line in (("inspect", exported), ("inspect", exported, "--out", exported / "figures")):
        done = cli(*line)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "add --out DIR" in done.err
    done = cli("inspect", exported, "--out", tmp_path / "figures")
    assert done.status == 0, done.err
    assert "Verdict" in done.out
    assert not ADVICE.search(done.out)
    assert (tmp_path / "figures/diagnosis.json").is_file()
    assert contents(exported) == before


def test_a_folder_of_bundles_counts_as_finished_runs(cli: Callable, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evidence/catch"
    for seed in (100, 101):
        made = folder / f"seed_{seed}"
        shutil.copytree(exported, made)
        config = from_yaml(made / "config.yaml").model_copy(update={"seed": seed})
        (made / "config.yaml").write_text(to_yaml(config))
        about = {"seed": seed, "config_hash": config_hash(config)}
        (made / "result.json").write_text(json.dumps(json.loads((made / "result.json").read_text()) | about))
        seal(made)
    for given in ((folder,), (folder / "seed_100", folder / "seed_101")):
        assert cli("report", *given, "--out", tmp_path / "page", "--format", "csv").status == 0
        rows = list(csv.DictReader((tmp_path / "page/runs.csv").read_text().splitlines()))
        assert [(row["seed"], row["origin"]) for row in rows] == [("100", "ours"), ("101", "ours")]
    assert len(cli("scores", "export", folder).out.splitlines()) == 3
    assert cli("status", folder).out.count("done") >= 2
    (folder / "seed_101/metrics.jsonl").write_text("")
    assert "seed_101 is a damaged bundle (metrics.jsonl has 0 bytes" in cli("status", folder).out.replace("\n", " ")
    partly = cli("report", folder, "--out", tmp_path / "page", "--format", "csv")
    assert partly.status == 0
    rows = list(csv.DictReader((tmp_path / "page/runs.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows if row.get("score")] == ["100"]


def test_its_configuration_is_shown_and_trained_again(
    cli: Callable, finished: Path, exported: Path, tmp_path: Path
) -> None:
    assert cli("config", "show", "--from", exported).out == (finished / "config.yaml").read_text()
    assert cli("train", "--from", exported / "config.yaml", "--out", tmp_path / "again", "--quiet").status == 0
    again = tmp_path / "again/quick/rem/Catch/seed_0"
    assert (
        json.loads((again / "result.json").read_text())["returns"]
        == json.loads((exported / "result.json").read_text())["returns"]
    )


def test_nothing_is_trained_in_it(cli: Callable, exported: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs/quick/rem/Catch/seed_0"
    shutil.copytree(exported, place)
    before = contents(place)
    for line in (
        ("train", "--from", place / "config.yaml", "--out", tmp_path / "runs"),
        ("train", "--continue", place, "--set", "training.num_epochs=9", "--out", tmp_path / "longer"),
    ):
        done = cli(*line)
        assert (done.status, done.err.count("\n")) == (2, 1), done.err
        assert f"`remctl train --from {place}/config.yaml` trains it once more" in done.err
    assert contents(place) == before
    assert not (tmp_path / "longer").exists()


def test_a_run_with_weights_of_that_name_in_it_is_no_bundle(cli: Callable, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "agent.safetensors").write_bytes(b"exported by hand")
    assert not RunFolder(run).is_bundle
    assert cli("eval", run, "--episodes", 2).status == 0


# --- import


def test_import_makes_a_run_folder_of_it(cli: Callable, exported: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (exported / "notes.txt").write_text("mine")
    done = cli("import", exported, "--out", run)
    assert done.status == 0, done.err
    assert "left out, as no part of the bundle: notes.txt" in done.err
    for name in FILES:
        if name not in ("bundle.json", "agent.safetensors", "README.md", "provenance.json"):
            assert (run / name).read_bytes() == (exported / name).read_bytes()
    there, here = load_agent(RunFolder(exported)), load_agent(RunFolder(run))
    assert all(torch.equal(t, here.agent[c][n]) for c, tensors in there.agent.items() for n, t in tensors.items())
    record = json.loads((run / "imported.json").read_text())
    assert (record["format"], record["file"]) == ("bundle", str(exported))


def test_an_imported_one_keeps_its_score_and_is_never_trained(cli: Callable, exported: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/imported/rem/Catch/seed_0"
    assert cli("import", exported, "--out", run).status == 0
    again = cli("train", "--from", run / "config.yaml", "--name", "imported", "--out", tmp_path / "runs")
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert f"`remctl train --from {run}/config.yaml` trains it once more" in again.err
    done = cli("eval", run, "--episodes", 5)
    assert "keeps the score of the final test" in done.err
    assert (run / "result.json").read_bytes() == (exported / "result.json").read_bytes()
    assert cli("report", tmp_path / "runs", "--out", tmp_path / "page", "--format", "csv").status == 0
    (row,) = csv.DictReader((tmp_path / "page/runs.csv").read_text().splitlines())
    assert row["origin"] == "imported"
    assert "only a run that was trained here becomes a bundle" in cli("export", run, "--out", tmp_path / "x").err
    assert not (tmp_path / "x").exists()


def test_imported_runs_are_not_advised_to_train(cli: Callable, exported: Path, tmp_path: Path) -> None:
    assert cli("import", exported, "--from", "bundle", "--out", tmp_path / "run").status == 0
    done = cli("inspect", tmp_path / "run")
    assert done.status == 0, done.err
    assert not ADVICE.search(done.out)


# --- export


def test_a_large_one_says_which_files_are_large(
    cli: Callable, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 80_000)
    done = cli("export", finished, "--out", tmp_path / "out")
    assert done.status == 0
    (line,) = [line for line in done.err.splitlines() if "large for git" in line]
    assert "agent.safetensors 0.1 MB" in line
    assert "config.yaml" not in line


def test_what_cannot_become_one_is_refused(cli: Callable, finished: Path, exported: Path, tmp_path: Path) -> None:
    unfinished, taken, file = tmp_path / "run", tmp_path / "taken", tmp_path / "file"
    shutil.copytree(finished, unfinished)
    (unfinished / "result.json").unlink()
    taken.mkdir()
    (taken / "x").touch()
    file.touch()
    wrong = tmp_path / "wrong"
    shutil.copytree(finished, wrong)
    (wrong / "result.json").write_text(json.dumps(json.loads((wrong / "result.json").read_text()) | {"score": 3}))
    cases: dict[str, tuple[Any, ...]] = {
        "is not finished": (unfinished, "--out", tmp_path / "out"),
        "has something in it already": (finished, "--out", taken),
        "is no folder": (finished, "--out", file),
        "so there can be none in it": (finished, "--out", file / "out"),
        "is a bundle": (exported, "--out", tmp_path / "out"),
        "its score is not the mean of its returns": (wrong, "--out", tmp_path / "out"),
        "--without-lpips are of": (finished, "--out", tmp_path / "out", "--without-lpips"),
        "/proc takes no folders": (finished, "--out", "/proc/out"),
    }
    for words, line in cases.items():
        done = cli("export", *line)
        assert done.status in (1, 2), words
        assert words in done.err
        assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.usefixtures("full_disk")
def test_a_failure_leaves_nothing(cli: Callable, finished: Path, tmp_path: Path) -> None:
    refused(cli("export", finished, "--out", tmp_path / "out"), "disk full")
    assert not list(tmp_path.glob("*"))
