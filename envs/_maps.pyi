import numpy as np

def nearest(
    glyphs: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    scenery: tuple[int, int, int, int],
    key: np.ndarray,
    count: np.ndarray,
    /,
) -> None: ...
def mark_seen(glyphs: np.ndarray, stone: int, seen: np.ndarray, fresh: np.ndarray, /) -> None: ...
def differ(
    glyphs: np.ndarray,
    glyphs_before: np.ndarray,
    status: np.ndarray,
    status_before: np.ndarray,
    ignored: int,
    changed: np.ndarray,
    /,
) -> None: ...
def nearby(
    glyphs: np.ndarray,
    glyphs_before: np.ndarray,
    status: np.ndarray,
    status_before: np.ndarray,
    fields: tuple[int, int, int, int],
    rows: np.ndarray,
    underfoot: np.ndarray,
    scenery: tuple[int, int, int, int],
    far: int,
    under: np.ndarray,
    distance_before: np.ndarray,
    count_before: np.ndarray,
    distance: np.ndarray,
    count: np.ndarray,
    approach: np.ndarray,
    /,
) -> None: ...
