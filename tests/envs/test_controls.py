from dataclasses import replace

import numpy as np
import pytest
from nle import nethack

from envs.controls import ExtendedControls, PlainControls
from envs.game import ESC, Game
from envs.tasks import task

MORE, YN, GETLIN = "more", "yn", "getlin"
KEY = {"north": ord("k"), "northwest": ord("y"), "cast": ord("Z"), "eat": ord("e"), "quaff": ord("q")}


class ScriptedGame(Game):
    """Shows one scripted (message, prompt) after each key press; over after the last if ``dies``."""

    def __init__(self, script, first=("", None), dies=False):
        self.pressed, self.pages, self._script, self._dies = [], [], list(script), dies
        self.blstats, self._last_blstats = np.ones(27, np.int64), np.zeros(27, np.int64)
        self.internal, self.program_state = [0] * 9, [0] * 6
        self._show(*first)
        self.press, self.is_over = self._press, lambda: self._dies and not self._script

    def _show(self, text, prompt):
        self.text = text.encode()
        self.internal[1:4] = [prompt == YN, prompt == GETLIN, prompt == MORE]

    def _press(self, key):
        self.pressed.append(key)
        self._show(*self._script.pop(0))

    def message(self):
        return self.text


def extended(script, first=("", None)):
    game = ScriptedGame(script, first)
    return game, ExtendedControls(task("NetHackScoreExtended-v0"), game)


def act(controls, name):
    spec = task("NetHackScoreExtended-v0")
    return controls.play(spec.action_names.index(name))


def test_every_more_page_is_kept_and_dismissed():
    game = ScriptedGame([("You hear a noise.", MORE), ("It bites!", MORE), ("You die...", MORE), ("", None)], dies=True)
    assert PlainControls(task("NetHackScore-v0"), game).play(1)
    assert game.pressed == [ord("k"), 32, 32, 32]
    assert game.pages == [b"You hear a noise.", b"It bites!", b"You die..."]
    assert (game._last_blstats == 1).all()


def test_the_same_page_shown_twice_in_a_row_is_kept_once():
    game = ScriptedGame([("Inventory follows.", MORE), ("Inventory follows.", MORE), ("", None)])
    PlainControls(task("NetHackScore-v0"), game).play(1)
    assert game.pages == [b"Inventory follows."]


@pytest.mark.parametrize(
    ("question", "pressed"),
    [
        ("Really attack the gnome?", [ord("k")]),
        ("In what direction?", [ord("k")]),
        ("Really step into the water?", [ord("k"), ESC]),
        ("What do you want to drink? [a or ?*]", [ord("k"), ESC]),
    ],
)
def test_questions_are_declined_but_for_the_exceptions(question, pressed):
    game = ScriptedGame([(question, YN), ("", None)])
    PlainControls(task("NetHackScore-v0"), game).play(1)
    assert game.pressed == pressed


def test_all_questions_are_left_where_the_task_says_so():
    game = ScriptedGame([("Really step into the water?", YN)])
    PlainControls(replace(task("NetHackScore-v0"), allow_all_yn_questions=True), game).play(1)
    assert game.pressed == [ord("k")]


def test_text_input_is_declined():
    game = ScriptedGame([("Call it:", GETLIN), ("", None)])
    PlainControls(task("NetHackScore-v0"), game).play(1)
    assert game.pressed == [ord("k"), ESC]


def test_cast_picks_the_first_spell_and_leaves_the_direction_to_the_player():
    game, controls = extended([("", MORE), ("In what direction?", YN)])
    act(controls, "cast")
    assert game.pressed == [ord("Z"), ord("a")]


def test_cast_without_spells_presses_nothing_more():
    game, controls = extended([("You don't know any spells right now.", None)])
    act(controls, "cast")
    assert game.pressed == [ord("Z")]


def test_a_skill_that_can_be_enhanced_is_enhanced_at_once():
    game, controls = extended(
        [
            ("You feel more confident in your fighting skills.", None),
            ("", MORE),
            ("You are now skilled.", None),
        ]
    )
    act(controls, "north")
    assert game.pressed == [ord("k"), int(nethack.Command.ENHANCE), ord("a")]
    assert game.pages == [b"You feel more confident in your fighting skills."]


@pytest.mark.parametrize(
    ("prompt", "action", "pressed"),
    [
        ("What do you want to eat? [fgh or ?*]", "northwest", ord("f")),
        ("What do you want to drink? [m or ?*]", "northwest", ord("m")),
        ("What do you want to eat? [fgh or ?*]", "north", ESC),
        ("There is a newt corpse here; eat it? [ynq] (n)", "northwest", ord("y")),
        ("There is a newt corpse here; eat it? [ynq] (n)", "north", ESC),
        ("In what direction?", "north", ord("k")),
        ("Are you sure you want to pray? [yn] (n)", "northwest", ord("y")),
    ],
)
def test_what_an_action_means_at_a_prompt(prompt, action, pressed):
    game, controls = extended([("", None)], first=(prompt, YN))
    act(controls, action)
    assert game.pressed == [pressed]


def test_drink_prompts_are_left_to_the_player_in_the_extended_task():
    game, controls = extended([("What do you want to drink? [m or ?*]", YN)])
    act(controls, "quaff")
    assert game.pressed == [ord("q")]
