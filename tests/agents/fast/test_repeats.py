"""Distinct rows of a batch, and a memory of rows."""

import torch

from agents.fast import repeats
from agents.fast.repeats import Memo, distinct_rows, joint_shares


def test_distinct_rows_come_in_order_and_spread_back():
    x = torch.tensor([[3, 1], [0, 0], [3, 1], [2, 2], [0, 0]], dtype=torch.int16)
    distinct = distinct_rows(x)
    assert distinct.rows.tolist() == [[3, 1], [0, 0], [2, 2]]
    values = torch.tensor([[1.0], [10.0], [100.0]], requires_grad=True)
    spread = distinct.spread(values)
    assert spread.tolist() == [[1.0], [10.0], [1.0], [100.0], [10.0]]
    (spread * torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[4.0], [7.0], [4.0]]


def test_rows_that_all_differ_are_left_alone():
    for x in (torch.arange(6).view(3, 2), torch.zeros(0, 4)):
        distinct = distinct_rows(x)
        assert distinct.rows is x
        assert distinct.spread(x) is x


def test_a_memo_computes_each_row_once_and_forgets_when_full(monkeypatch):
    monkeypatch.setattr(repeats, "_MEMO_ROWS", 4)
    seen = []

    def doubled(x):
        seen.extend(x[:, 0].tolist())
        return 2.0 * x

    def of(*values):
        return memo.compute("a", torch.tensor(values)[:, None])[:, 0].tolist()

    memo = Memo({"a": doubled, "b": doubled}, forget={"b"})
    assert of(1.0, 2.0, 1.0) == [2.0, 4.0, 2.0]
    assert of(2.0) == [4.0]
    assert seen == [1.0, 2.0]
    assert of(3.0, 1.0) == [6.0, 2.0]
    assert seen == [1.0, 2.0, 3.0]
    assert of(5.0, 6.0) == [10.0, 12.0]  # three are known: two more might not fit
    assert of(1.0) == [2.0]
    assert seen == [1.0, 2.0, 3.0, 5.0, 6.0, 1.0]
    assert of(1.0, 2.0, 3.0, 4.0, 5.0, 6.0) == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    seen.clear()
    for _ in range(2):
        assert memo.compute("b", torch.ones(1, 1)).tolist() == [[2.0]]
    assert seen == [1.0, 1.0]


def test_joint_shares_are_the_pieces_of_a_linear_layer():
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    a = torch.tensor([[1.0, 1.0]], requires_grad=True)
    b = torch.tensor([[2.0], [3.0]])
    left, right = joint_shares(weight, [a, b])
    assert left.tolist() == [[3.0, 9.0]]
    assert right.tolist() == [[6.0, 12.0], [9.0, 18.0]]
    (left.sum() + 2.0 * right.sum()).backward()
    assert weight.grad is not None and a.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 10.0], [1.0, 1.0, 10.0]]
    assert a.grad.tolist() == [[5.0, 7.0]]
