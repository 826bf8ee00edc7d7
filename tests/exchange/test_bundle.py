"""A bundle: what is in it and what is not, and that it is read like the run that it was made of."""

from __future__ import annotations

import csv
import hashlib
import io
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
from remctl.runs import files, provenance
from remctl.runs.layout import RunFolder
from remctl.train import checkpoint
from remctl.train.evaluate import as_steps, play
from remctl.train.loading import load_agent
from remctl.train.seeding import Randomness
from tests.exchange.bundles import change, reconfigure, seal
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
    assert len(found["media/episode.webp"]) <= 60_000
    assert sum(map(len, found.values())) < 3 << 20
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
            with Image.open(io.BytesIO(made)) as video, Image.open(io.BytesIO(whole)) as best:
                assert video.size == best.size  # so that its captions can be read


def test_the_card_says_what_it_is_and_how_to_check_it(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    result = json.loads((exported / "result.json").read_text())
    low, high = agreement.interval(result["returns"])
    for words in (
        "# REM on Catch", "variant `rem`", "preset `quick`", "seed 0", f"**{result['score']:.4g}**", "5 test episodes",
        f"95% interval {low:.4g} to {high:.4g}", "140 real steps, 4 epochs", "1 thread, ",
        f", {torch.backends.cpu.get_cpu_capability()}, fp32 |", "remctl train --game Catch",
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
    for key in ("arguments.rows=20", "frame_skip=2", "time_limit_test_frames=5"):
        assert card._known_scores(resolve("gym:bsuite/catch-v0", "quick", sets=[f"environment.{key}"])) == {}
    assert card._known_scores(resolve("Pong", "quick", sets=["environment.time_limit_test_frames=5"])) != {}


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
    spaces = ["x", "x.file=/data/My Secret/x", "--set=x.f=/data/My Secret/x", "-o/home/alice/r", "a=['/b c/d, e/f', 3]"]
    assert public_command([*spaces, "a={b: /c d/e, f: 1}", "--set=x.f=/data/Smith, J/y"]) == [
        "remctl", "x.file=x", "--set=x.f=x", "-or", "a=['f', 3]", "a={b: e, f: 1}", "--set=x.f=y"
    ]  # fmt: skip
    about = {"platform": "Linux-5.4.0-alices-x86_64-with-glibc2.31", "hostname": "h"}
    assert public_start({"machine": about, "user": "alice"}) == {"machine": {"platform": "Linux x86_64"}}


def test_a_place_is_known_as_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/tmp")
    refuse_places({"README.md": "runs/tmp /tmpx ~/tmp"})
    for text in ("--out=/tmp", "'/tmp/x'", "at /tmp."):
        with pytest.raises(UserError, match=r"README\.md has a path"):
            refuse_places({"README.md": text})


@pytest.mark.parametrize(
    "value",
    ["/data/alice/x", "~/x", "~alice", "[1, /data/x]", "{k: {l: 'file:///data/x'}}", "--at=/data/x", "../../alice/x"],
)
def test_no_path_beyond_the_working_folder_is_left_in_a_configuration(value: str) -> None:
    with pytest.raises(UserError, match=r"config\.yaml has a path of this machine in it"):
        refuse_places({"config.yaml": to_yaml(resolve("gym:X-v0", "quick", sets=[f"environment.arguments.a={value}"]))})


def test_values_that_are_no_paths_stay_in_a_configuration() -> None:
    sets = [f"environment.arguments.a{i}={value}" for i, value in enumerate(("levels/x.wad", "1/2", "/", "a ~ b"))]
    refuse_places({"config.yaml": to_yaml(resolve("gym:ALE/Pong-v5", "quick", sets=sets))})


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json", "episodes.jsonl", "README.md"])
def test_places_are_found_whatever_letters_are_in_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bj\u00f6rn")
    about = {"level": f"at {Path.home()}/x"}
    config = to_yaml(resolve("gym:X-v0", "quick", sets=[f"environment.arguments.a={about['level']}"]))
    texts = {"config.yaml": config, "README.md": about["level"], "provenance.json": json.dumps([about])}
    with pytest.raises(UserError, match="has a path"):
        refuse_places({name: texts.get(name, "{}\n" + json.dumps(about) + '\n{"half')})


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
    assert agreement.compare([1.0] * 5, [1.0] * 5) == (True, 1.0, True, 4)
    low, high = agreement.interval(coin)
    assert (low, high) == (pytest.approx(-0.2, abs=0.03), pytest.approx(0.2, abs=0.03))


@pytest.mark.parametrize(
    ("played", "stored", "enough"), [(5, 5, 4), (3, 5, 4), (1, 40, 2), (1, 99, 2), (99, 1, 100), (1, 1, 100)]
)
def test_few_episodes_tell_nothing(played: int, stored: int, enough: int) -> None:
    found = agreement.compare([0.0] * played, [21.0] * stored)
    assert (found.agrees, found.enough) == (False if played >= enough else None, enough)
    assert found.p == pytest.approx(agreement._smallest_p(played, stored))
    assert agreement.compare([0.0] * enough, [21.0] * stored).agrees is False
    assert agreement.compare([21.0] * stored, [21.0] * stored).agrees is True


def test_eval_says_how_many_episodes_would_tell(cli: Callable, exported: Path) -> None:
    for more in ((), ("--seed", 3)):
        done = cli("eval", exported, "--episodes", 3, *more)
        assert done.status == 3, done.err
        assert done.out.splitlines()[-1].endswith("too few episodes to tell: play at least 4, --episodes 4")
        assert json.loads(cli("eval", exported, "--episodes", 3, "--json").out)["agrees"] is None


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
        reconfigure(made, seed=seed)
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
    assert "agent.safetensors 0.1 MiB" in line
    assert "config.yaml" not in line


def test_a_run_that_diverged_is_refused(cli: Callable, finished: Path, exported: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for folder in (run, exported):
        change(folder / "result.json", returns=[None] * 5, score=None)
    seal(exported)
    for line in (("export", run, "--out", tmp_path / "out"), ("eval", exported)):
        refused(cli(*line), "its returns are not finite")
    change(run / "result.json", returns=[1.0] * 5, score=1.0)
    found = load_agent(RunFolder(run))
    found.agent["controller"]["actor.weight"][0, 0] = torch.inf
    shutil.rmtree(run / "checkpoints")
    checkpoint.save(RunFolder(run), found.epoch, found.config_hash, found.agent, {}, precisions=found.precisions)
    refused(cli("export", run, "--out", tmp_path / "out"), "controller.actor.weight has values that are not finite")
    more = ("--format", "rem", "--without-lpips")
    refused(
        cli("export", run, "--out", tmp_path / "x.pt", *more), "controller.actor.weight has values that are not finite"
    )
    assert not any((tmp_path / name).exists() for name in ("out", "x.pt"))


def test_leftovers_of_a_killed_export_get_into_none(cli: Callable, finished: Path, tmp_path: Path) -> None:
    left = files.temporary(tmp_path / "out") / "media/of_another_run.webp"
    left.parent.mkdir(parents=True)
    left.touch()
    assert cli("export", finished, "--out", tmp_path / "out").status == 0
    assert tuple(contents(tmp_path / "out")) == FILES
    assert left.exists()  # its process may live, in another container


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
