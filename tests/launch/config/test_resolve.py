import pytest

from launch.config.presets import preset
from launch.config.resolve import for_machine, resolve
from launch.errors import UserError


def test_a_run_is_resolved_once_and_keeps_what_was_decided():
    found = resolve(preset("keyroom").replace(device="cpu"))
    assert (found.config.placement, found.programs) == ("symmetric", ())
    assert resolve(found.config).config == found.config


def test_a_machine_decides_device_and_precision():
    config = for_machine(preset("keyroom").replace(device="cpu"))
    assert (config.placement, config.device) == ("symmetric", "cpu") and config.ppo.precision != "auto"
    assert for_machine(config) == config


def test_what_cannot_start_is_refused_before_anything_exists():
    config = preset("keyroom")
    with pytest.raises(UserError, match=r"env\.task"):
        resolve(config.replace(env=config.env.replace(task="MiniHack-KeyRom-S5-v0")))
