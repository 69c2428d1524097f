"""The models that stand for all bundled ones have every kind of layer that these have."""

from kvplan.specs.catalog import names


def kinds(model):
    """What sets a model's layers apart: mixers by what they keep, MLPs, blocks, norms."""
    found = {model.norm}
    for layer in (run.layer for run in model.runs()):
        kept = [(type(s.entry), type(s.retention), s.owned, s.selected is None) for s in layer.slots()]
        found |= {(type(layer.mixer), *kept), type(layer.mlp), layer.block, layer.images_only}
    return found


def test_representatives_have_every_kind_of_layer(representatives, bundled):
    covered = set().union(*(kinds(bundled(name)) for name in representatives))
    missing = {name: kinds(bundled(name)) - covered for name in names("models")}
    assert {name: some for name, some in missing.items() if some} == {}
