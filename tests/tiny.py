"""A whole run in seconds: Catch with networks of a few hundred parameters."""

TINY = (
    "environment.frame_size=32",
    "collection.initial_steps=60",
    "collection.steps_per_epoch=20",
    "tokenizer.channels=[8]",
    "tokenizer.embed_dim=16",
    "tokenizer.num_codes=16",
    "tokenizer.warmup_steps=2",
    "tokenizer.training.first_epoch_extra_steps=0",
    "tokenizer.training.steps_per_epoch=2",
    "tokenizer.training.stop_after_epoch=2",
    "tokenizer.training.batch_size=4",
    "world_model.num_layers=1",
    "world_model.embed_dim=16",
    "world_model.ffn_dim=16",
    "world_model.dropout=0.1",
    "world_model.training.first_epoch_extra_steps=0",
    "world_model.training.steps_per_epoch=2",
    "world_model.training.batch_size=4",
    "controller.conv_channels=[4]",
    "controller.hidden_dim=16",
    "controller.training.start_after_epoch=0",
    "controller.training.steps_per_epoch=2",
    "controller.training.batch_size=4",
    "imagination.burn_in_frames=4",
    "evaluation.every_epochs=2",
    "evaluation.num_episodes=3",
    "evaluation.num_envs=2",
    "evaluation.final_episodes=5",
    "evaluation.diagnosis_starts=4",
    "training.num_epochs=4",
    "runtime.threads=1",  # else the load of the machine decides, and with it the roundings
)

# Over TINY: IRIS with every part it has, small.
TINY_IRIS = (
    *TINY,
    "tokenizer.num_groups=4",
    "tokenizer.num_res_blocks=1",
    "world_model.embed_dim=32",  # not the tokenizer's
    "world_model.sequence_blocks=5",
    "imagination.horizon=7",  # longer than M's window
)

# A module that registers an environment without discrete actions: whoever plays it has imported it.
WALK = (
    "import gymnasium\n"
    "class Walk(gymnasium.Env):\n"
    "    action_space = gymnasium.spaces.Box(0, 1)\n"
    "    metadata = {'render_modes': ['rgb_array']}\n"
    "    def __init__(self, render_mode=None): self.render_mode = render_mode\n"
    "gymnasium.register('Walk-v0', Walk)\n"
)
