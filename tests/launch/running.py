"""Runs, as the command starts them, inside a test."""

from rich.console import Console

from launch.processes.lifecycle import StopRequest
from launch.runs.folder import RunFolder
from launch.runs.progress import progress
from launch.training.driver import train


def trained(config, *, resume=False):
    """Train a configuration that names its folder; returns the summary."""
    path = config.runs / config.name
    folder = (
        RunFolder.open(path)
        if resume
        else RunFolder.create(config.runs, config.name, config.model_dump_json(), prefix="x")
    )
    shown = progress(Console(quiet=True), 1.0, total_steps=config.total_steps)
    with folder, StopRequest() as stop, shown:
        return train(config, folder, shown, stop, resume=resume)
