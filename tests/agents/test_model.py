import torch

from agents.model import FlatParameters


def test_flat_parameters_keep_names_shapes_and_values_and_share_memory():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    flat = FlatParameters(model)
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, before[name])
    model(torch.ones(1, 3)).sum().backward()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(flat.clip(norm.item() / 2), norm)
    torch.testing.assert_close(torch.linalg.vector_norm(flat.gradient), norm / 2)
    flat.values.data.zero_()
    assert all(not p.any() for p in model.parameters())
