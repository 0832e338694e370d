import json
import subprocess
import sys

import pytest

from envs.data import EpisodeResult
from launch.runs.glossary import GLOSSARY, glossary_markdown
from launch.runs.metrics import MetricsWriter, WindowedEpisodes, read_metrics


def episode(**changes):
    fields = {
        "task": "toy", "seeds": None, "env_return": 1.0, "num_steps": 10, "end_status": 2, "success": True,
    }  # fmt: skip
    return EpisodeResult(**(fields | changes))


def test_lines_are_flushed_and_read_back(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(10, {"rollout/success": 0.5, "rewards/program:ab12/mean": -1})
        writer.write(20, {"policy/loss": float("nan"), "policy/grad_norm": float("inf")})
        first, second = read_metrics(tmp_path)
    assert (first["step"], first["rollout/success"], first["rewards/program:ab12/mean"]) == (10, 0.5, -1.0)
    assert second["policy/loss"] is None and second["policy/grad_norm"] is None
    assert second["time"] >= first["time"] > 1.7e9


def test_an_undefined_metric_is_refused_with_the_nearest(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        with pytest.raises(ValueError, match=r"'rollout/sucess' is not defined .*rollout/success"):
            writer.write(1, {"rollout/success": 1.0, "rollout/sucess": 1.0})
        for name in ("rewards/mean", "rewards/a/b/mean", "rewards/a/sum", "policy/loss2", ""):
            with pytest.raises(ValueError, match="is not defined"):
                writer.write(1, {name: 1.0})
    assert read_metrics(tmp_path) == []


def test_resume_drops_the_abandoned_future(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in (10, 20, 30):
            writer.write(step, {"policy/loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "pol')  # the crash
    with MetricsWriter(tmp_path, tensorboard=False, resume_step=20) as writer:
        assert writer.num_dropped == 1
        writer.write(25, {"policy/loss": 25})
    assert [line["step"] for line in read_metrics(tmp_path)] == [10, 20, 25]
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_metrics(tmp_path)


def test_tensorboard_gets_the_same_scalars_and_forgets_the_future(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write(step, {"policy/loss": step / 2, "policy/entropy": float("nan")})
    with MetricsWriter(tmp_path, resume_step=20) as writer:
        writer.write(40, {"policy/loss": 99})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["policy/loss"]
    assert [(s.step, s.value) for s in events.Scalars("policy/loss")] == [(10, 5), (20, 10), (40, 99)]


def test_tensorboard_is_written_without_torch(tmp_path):
    script = (
        "import sys; from pathlib import Path; from launch.runs.metrics import MetricsWriter; "
        "assert 'tensorboard' not in sys.modules; "
        "MetricsWriter(Path(sys.argv[1])).close(); assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_every_definition_is_a_sentence_in_the_markdown():
    markdown = glossary_markdown()
    for name, text in GLOSSARY.items():
        assert text.endswith(".") and "|" not in text
        assert f"| `{name.replace('*', '<name>')}` | {text} |" in markdown
    assert markdown.count("|---|---|") == len({name.split("/")[0] for name in GLOSSARY})


def test_windowed_means_by_hand(tmp_path):
    episodes = WindowedEpisodes(window=3)
    assert episodes.metrics() == {"rollout/episodes": 0}
    episodes.add([episode(env_return=100.0)])  # leaves the window below
    cut, died = {"score": 5, "max_depth": 2}, {"score": 15, "end_reason": "died"}
    episodes.add(
        [
            episode(env_return=1.0, num_steps=10),
            episode(env_return=0.0, num_steps=20, success=False, end_status=-1, game=cut),
            episode(env_return=-1.0, num_steps=30, success=False, end_status=1, game=died),
        ]
    )
    expected = {
        "rollout/episodes": 4,
        "rollout/success": 1 / 3,
        "rollout/env_return": 0.0,
        "rollout/episode_steps": 20,
        "rollout/truncated_share": 1 / 3,
        "rollout/score": 10,
        "rollout/max_depth": 2,
    }
    assert episodes.metrics() == pytest.approx(expected)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, episodes.metrics())
    again = WindowedEpisodes(window=3)
    again.load_state_dict(json.loads(json.dumps(episodes.state_dict())))
    for window in (episodes, again):
        window.add([episode()])
    assert again.metrics() == episodes.metrics()
