"""How an action becomes key presses, and what is done about the questions that NetHack asks.

Every page that is dismissed on the way is kept (``Game.pages``), so that no message is lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from nle import nethack as _nethack

from envs.game import ESC, GAME_OVER, IN_GETLIN, IN_YN, SPACE, WAITS_FOR_SPACE, Game
from envs.spec import TaskSpec

nethack: Any = _nethack  # an extension module: type checkers cannot see its constants

LEFT_TO_PLAYER = (b"eat", b"attack", b"direction?", b"pray")
"""Yes/no questions and item prompts with one of these in them are the player's to answer (NLE)."""
LEFT_TO_PLAYER_EXTENDED = (*LEFT_TO_PLAYER, b"drink")
"""The same for ``NetHackScoreExtended`` (ONI)."""


class Controls(Protocol):
    """The controls of one game."""

    nle_keys: Sequence[str]
    """Observation keys that the controls read."""

    def play(self, action: int) -> bool:
        """Press the keys of an action (an index into the task's own actions) and deal with prompts.

        Returns:
            Whether the game is over.
        """
        ...


class PlainControls:
    """NLE's: one key an action; ``--More--`` is dismissed, text input and most questions are declined.

    Args:
        spec: the task.
        game: the game to play.
    """

    nle_keys: Sequence[str] = ()
    left_to_player = LEFT_TO_PLAYER

    def __init__(self, spec: TaskSpec, game: Game) -> None:
        self._keys, self._game = spec.keys, game
        self._press, self._is_over, self._internal = game.press, game.is_over, game.internal
        self._program_state = game.program_state
        self._allow_yn, self._allow_modes = spec.allow_all_yn_questions, spec.allow_all_modes

    def play(self, action: int) -> bool:
        """Press the action's key."""
        self._press(self._keys[action])
        return self.settle()

    def settle(self) -> bool:
        """Deal with whatever NetHack asks; returns whether the game is over."""
        internal = self._internal
        if not (internal[WAITS_FOR_SPACE] or internal[IN_GETLIN] or internal[IN_YN]):
            return self._is_over()
        if self._allow_modes and not self._program_state[GAME_OVER]:
            return self._is_over()
        game = self._game
        while not self._is_over():
            if internal[WAITS_FOR_SPACE]:
                game.keep_page()
                self._press(SPACE)
            elif internal[IN_GETLIN]:
                game.keep_blstats()
                self._press(ESC)
            elif internal[IN_YN] and not self._is_left_to_player():
                game.keep_blstats()
                self._press(ESC)
                break
            else:
                break
        return self._is_over()

    def _is_left_to_player(self) -> bool:
        if self._allow_yn:
            return True
        message = self._game.message()
        return any(part in message for part in self.left_to_player)


_COMPASS_KEYS = (121, 107, 117, 104, 0, 108, 98, 106, 110)
"""Keys of the eight directions, in reading order around the hero."""
_MAX_PUSHES = 100


class KeyRoomControls(PlainControls):
    """MiniHack's KeyRoom: APPLY beside a closed door, with a key in the pack, unlocks and opens it.

    The macro comes before the APPLY key itself, as in MiniHack.
    """

    nle_keys: Sequence[str] = ("inv_glyphs", "inv_letters")

    def __init__(self, spec: TaskSpec, game: Game) -> None:
        super().__init__(spec, game)
        self._apply = next((i for i, k in enumerate(spec.keys) if k == nethack.Command.APPLY), -1)
        self._key_glyph = _glyph_of_object("skeleton key")
        self._inv_glyphs, self._inv_letters = game.rows["inv_glyphs"], game.rows["inv_letters"]
        self._glyphs = game.rows["glyphs"]
        self.on_macro = lambda: None
        """Called after the macro and before the action's own key: rewards compare with the state between."""

    def play(self, action: int) -> bool:
        """Press the action's key, after the macro where it applies."""
        if action == self._apply and (self._inv_glyphs == self._key_glyph).any():
            direction = self._closed_door()
            if direction is not None:
                if self._unlock(direction):
                    return True
                self.on_macro()
        self._press(self._keys[action])
        return self.settle()

    def _closed_door(self) -> int | None:
        x, y = self._game.blstats[:2].tolist()
        around = self._glyphs[y - 1 : y + 2, x - 1 : x + 2].ravel().tolist()
        doors = (_VERTICAL_CLOSED_DOOR, _HORIZONTAL_CLOSED_DOOR)
        return next((key for key, glyph in zip(_COMPASS_KEYS, around, strict=False) if glyph in doors), None)

    def _unlock(self, direction: int) -> bool:
        letter = int(self._inv_letters[(self._inv_glyphs == self._key_glyph).argmax()])
        for key in (int(nethack.Command.APPLY), letter, direction, ord("y")):
            self._press(key)
        over = self.settle()
        for _ in range(_MAX_PUSHES):
            self._game.keep_page()
            if over:
                break
            self._press(direction)
            over = self.settle()
            if self._closed_door() is None:
                break
        self._game.keep_page()
        return over


def _glyph_of_object(name: str) -> int:
    for index in range(nethack.NUM_OBJECTS):
        if nethack.OBJ_NAME(nethack.objclass(index)) == name:
            return nethack.GLYPH_OBJ_OFF + index
    raise ValueError(f"NetHack has no object called '{name}'")


_VERTICAL_CLOSED_DOOR = nethack.GLYPH_CMAP_OFF + 15
_HORIZONTAL_CLOSED_DOOR = nethack.GLYPH_CMAP_OFF + 16

_ITEM_PROMPT = re.compile(rb"What do you want to (?:eat|drink)\? \[(.)")
_YES_NO = re.compile(rb"(?:eat|drink).*\[yn")
_ENHANCE_HINT = b"You feel more confident in"
_NORTHWEST = ord("y")


class ExtendedControls(PlainControls):
    """ONI's controls for the score task (arXiv 2410.23022 and its released code).

    CAST picks the first spell; a skill that can be enhanced is enhanced at once; at an eat or drink prompt
    NW (the ``y`` key) takes the first item listed, and says yes to a yes/no question; any other action leaves
    the prompt.
    """

    left_to_player = LEFT_TO_PLAYER_EXTENDED

    def play(self, action: int) -> bool:
        """Press the action's key, or what it means at the prompt on show."""
        game, key = self._game, self._keys[action]
        if self._internal[IN_YN]:
            key = self._answer(key)
        start = len(game.pages)
        self._press(key)
        if key == nethack.Command.CAST and self._internal[WAITS_FOR_SPACE]:
            self._press(ord("a"))
        over = self.settle()
        if not over and self._may_enhance(start):
            over = self._enhance()
        return over

    def _answer(self, key: int) -> int:
        message = self._game.message()
        item = _ITEM_PROMPT.search(message)
        if item:
            return item[1][0] if key == _NORTHWEST else ESC
        if _YES_NO.search(message):
            return key if key == _NORTHWEST else ESC
        return key

    def _may_enhance(self, start: int) -> bool:
        internal = self._internal
        if internal[IN_YN] or internal[IN_GETLIN] or internal[WAITS_FOR_SPACE]:
            return False
        messages = (*self._game.pages[start:], self._game.message())
        return any(_ENHANCE_HINT in message for message in messages)

    def _enhance(self) -> bool:
        self._game.keep_page()
        self._press(int(nethack.Command.ENHANCE))
        if self._internal[WAITS_FOR_SPACE]:
            self._press(ord("a"))
        return self.settle()
