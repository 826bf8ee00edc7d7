"""What a wrong configuration says: the key's path, what was given, what is allowed, the remedy; always one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from remctl.config import from_yaml, resolve
from remctl.errors import UserError

BAD_VALUES = [
    ("world_model.num_layers=0", "given 0; allowed: greater than or equal to 1"),
    ("world_model.num_layers=3.5", "given 3.5; allowed: integer"),
    ("world_model.num_layers=true", "given true; allowed: a number"),
    ("world_model.num_layers=", "given null; allowed: integer"),
    ("world_model.num_layers={a: 1}", "given {'a': 1}; allowed: integer"),
    ("world_model.num_layers=2020-01-01", "given '2020-01-01'; allowed: integer"),
    ("tokenizer.reconstruction=huber", "given 'huber'; allowed: 'mse' or 'l1'"),
    ("tokenizer.channels=[]", "given []; allowed: at least 1 item"),
    ("tokenizer.channels=8", "given 8; allowed: list"),
    ("collection.epsilon=1.5", "given 1.5; allowed: less than or equal to 1"),
    ("collection.epsilon=inf", "given 'inf'; allowed: a finite number"),
    ("environment.end_on_life_loss=maybe", "given 'maybe'; allowed: boolean"),
    ("runtime.threads=0", "given 0; allowed: 'auto' or a whole number from 1 to 1024"),
    ("runtime.threads=all", "given 'all'; allowed: 'auto' or a whole number from 1 to 1024"),
    ("runtime.threads=true", "given true; allowed: 'auto' or a whole number from 1 to 1024"),
    ("runtime.trackers=[wandb, x]", "given 'x'; allowed: 'tensorboard' or 'wandb'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_VALUES)
def test_a_wrong_value_names_the_key_the_given_and_the_allowed(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("Pong", sets=[text])
    assert str(caught.value).startswith(text.partition("=")[0])
    assert str(caught.value).endswith(message)


def test_an_element_of_a_list_is_named() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.channels\.1: given 'x'; allowed: integer"):
        resolve("Pong", sets=["tokenizer.channels=[8, x]"])


UNKNOWN = [
    ("num_layers=3", "did you mean world_model.num_layers?"),
    ("lambda=1", "did you mean controller.lambda?"),
    ("world_modle.num_layers=3", "did you mean world_model.num_layers"),
    ("world_model.num_layer=3", "did you mean world_model.num_layers"),
    ("World_Model.Num_Layers=3", "did you mean world_model.num_layers?"),
    ("zzz=3", "see `remctl config show`"),
]


@pytest.mark.parametrize(("text", "message"), UNKNOWN)
def test_an_unknown_key_names_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"--set: unknown key '") as caught:
        resolve("Pong", sets=[text])
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["world_model", "=3", "", "world_model.num_layers"])
def test_set_without_a_value(text: str) -> None:
    with pytest.raises(UserError, match="write key=value, for example"):
        resolve("Pong", sets=[text])


@pytest.mark.parametrize("label", ["game", "seed", "preset", "variant"])
def test_labels_are_options_not_keys(tmp_path: Path, label: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{label}: 1\n")
    for source in ({"sets": [f"{label}=1"]}, {"file": file}):
        with pytest.raises(UserError, match=f"{label} is not set here: give --{label}"):
            resolve("Pong", **source)


def test_unknown_preset_and_variant() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'papper': did you mean paper"):
        resolve("Pong", preset="papper")
    with pytest.raises(UserError, match=r"unknown preset 'xyz': known: paper, quick, corrected, paper-text"):
        resolve("Pong", preset="xyz")
    with pytest.raises(UserError, match=r"unknown variant 'nopop': did you mean no_pop\?"):
        resolve("Pong", variant="nopop")


BAD_FILES = [
    (b"- a\n- b\n", "holds ['a', 'b'], not a mapping"),
    (b"42\n", "holds 42, not a mapping"),
    (b"false\n", "holds false, not a mapping"),
    (b"world_model: [1\n", "c.yaml:2: not YAML (expected ',' or ']', but got '<stream end>'): "),
    (b"a: 1\nb: \x00\n", "c.yaml:2: not YAML (U+0000 is not allowed: remove it)"),
    (b"a: 1\n\xff\xfe\x00x", "c.yaml:2: not YAML (not UTF-8: save it as UTF-8)"),
    (b"a: '\xc3\xa4'\n b: c: d\n", "c.yaml:2: not YAML (expected <block end>, but found"),
    (b"[" * 100_000, "not YAML"),
    (b"a: &a {b: *a}\n", "anchors (&a) are not allowed: write the value out"),
    (b"a: 1\nb: *a\n", "c.yaml:2: not YAML (aliases (*a) are not allowed: write the value out"),
    (b"<<: {seed: 1}\n", "unknown key '<<'"),
    (b"nope: 1\n", "unknown key 'nope'"),
    (b"world_model: {layers: 1}\n", "unknown key 'world_model.layers'"),
    (b"world_model: {1: 2}\n", "unknown key 'world_model.1'"),
    (b"world_model: 3\n", "is a section"),
    (b"!!python/object/apply:os.getcwd []\n", "not YAML"),
    (b"#" * 1_000_001, "larger than 1 MB"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=[m for _, m in BAD_FILES])
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    for read in (lambda: resolve("Pong", file=file), lambda: from_yaml(file)):
        with pytest.raises(UserError) as caught:
            read()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["world_model: {num_layers: 3, num_layers: 4}", "collection.epsilon: 0.1\ncollection.epsilon: 0.2"]
)
def test_a_key_given_twice_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is given twice, first in line 1: remove one"):
        resolve("Pong", file=path)


@pytest.mark.parametrize("value", ["!!bool foo", "!!timestamp foo", "!!int x", "!!python/object:os.system x"])
def test_a_value_with_a_wrong_tag_is_no_traceback(value: str) -> None:
    with pytest.raises(UserError, match="--set world_model.num_layers: value is not YAML"):
        resolve("Pong", sets=[f"world_model.num_layers={value}"])


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(UserError, match="larger than 1 MB"):
        resolve("Pong", file=Path("/dev/zero"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory: give a readable YAML file"):
        resolve("Pong", file=tmp_path / "none.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        from_yaml(tmp_path)


IMPOSSIBLE = [
    (["tokenizer.grid_size=3"], "halved a whole number of times: set it to"),
    (["tokenizer.grid_size=64"], "halved a whole number of times: set it to"),
    (["tokenizer.grid_size=128"], "halved a whole number of times: set it to"),
    (["environment.frame_size=96"], "halved a whole number of times: set it to"),
    (["environment.frame_size=" + "9" * 400], "halved a whole number of times: set it to"),
    (["tokenizer.channels=[12]"], "not all multiples of tokenizer.num_groups 8: change one"),
    (["tokenizer.channels=[8, 12]"], "not all multiples of tokenizer.num_groups 8: change one"),
    (["world_model.embed_dim=128"], "make them equal, or set world_model.observation_embeddings=separate"),
    (["world_model.num_heads=5"], "is not a multiple of 8 x num_heads 5: choose 240"),
    (["world_model.context_blocks=10"], "raise sequence_blocks above it"),
    (["imagination.horizon=2"], "set it to at least 3"),
    (["tokenizer.codebook_init=kmeans"], "set tokenizer.warmup=fixed or beats_median"),
    (["tokenizer.warmup=fixed"], "set tokenizer.warmup_steps"),
    (["controller.training.start_after_epoch=1"], "raise the later start_after_epoch"),
    (["tokenizer.training.stop_after_epoch=5"], "raise stop_after_epoch, or set it to null"),
    (["world_model.architecture=transformer"], "set world_model.observation_prediction=token_by_token, or"),
    (["world_model.loss_rule=all_positions"], "set world_model.loss_rule=supervise_starts, or"),
    (["tokenizer.architecture=vqgan", "tokenizer.grid_size=16"], "choose among [64, 32, 16], or set it to []"),
    (["tokenizer.architecture=vqgan", "tokenizer.attention_resolutions=[24]"], "choose among [64, 32, 16, 8], or"),
]


@pytest.mark.parametrize(("sets", "remedy"), IMPOSSIBLE)
def test_an_impossible_combination_names_the_remedy(sets: list[str], remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("Pong", sets=sets)
    assert remedy in str(caught.value)


REMEDIED = [
    ["world_model.embed_dim=128", "world_model.observation_embeddings=separate"],
    ["world_model.num_heads=5", "world_model.embed_dim=240", "tokenizer.embed_dim=240"],
    ["imagination.horizon=3"],
    ["tokenizer.codebook_init=kmeans", "tokenizer.warmup=fixed", "tokenizer.warmup_steps=1"],
    ["tokenizer.training.stop_after_epoch=6"],
    ["environment.frame_size=96", "tokenizer.grid_size=12"],
    ["tokenizer.channels=[8, 8, 8, 8, 12]"],  # the fifth is never used at 8x8
    ["world_model.architecture=transformer", "world_model.observation_prediction=token_by_token"],
    ["world_model.loss_rule=all_positions", "world_model.observation_prediction=token_by_token"],
    ["tokenizer.architecture=vqgan", "tokenizer.grid_size=16", "tokenizer.attention_resolutions=[]"],
    ["tokenizer.attention_resolutions=[24]"],  # no attention in Table 4's networks
]


@pytest.mark.parametrize("sets", REMEDIED)
def test_the_remedies_work(sets: list[str]) -> None:
    resolve("Pong", sets=sets)


@pytest.mark.parametrize(
    "text",
    [
        "world_model.num_layers: 3\nworld_model: {num_layers: 4}\n",
        "world_model: {num_layers: 4}\nworld_model.num_layers: 3\n",
        "world_model: {training: {batch_size: 4}}\nworld_model.training.batch_size: 4\n",
        "world_model: {training: {batch_size: 4}, training.batch_size: 5}\n",
    ],
)
def test_a_key_given_nested_and_dotted_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"world_model\.\S+ is given twice, nested and dotted: keep one"):
        resolve("Pong", file=file)
