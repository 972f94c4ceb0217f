"""What the protos must declare so that the gateway can serve them."""

from __future__ import annotations

from counterfoil.common.v1 import options_pb2
from counterfoil_gateway import api as apis
from counterfoil_gateway.calls import kind_of
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

API = apis.load(apis.image())
PUBLIC = {m.name for m in API.methods}
EVERY = {
    f"/{f.package}.{s.name}/{m.name}": m
    for f in descriptor_pb2.FileDescriptorSet.FromString(apis.image()).file
    if f.package.startswith("counterfoil.")
    for s in f.service
    for m in s.method
}


def test_every_public_unary_method_has_a_rest_form():
    assert [m.name for m in API.methods if not m.bindings and kind_of(m) == "unary_unary"] == []


def test_no_internal_method_has_a_rest_form():
    internal = [name for name in EVERY if name not in PUBLIC]
    assert internal
    assert not [n for n in internal if EVERY[n].options.HasExtension(annotations_pb2.http)]


def test_every_internal_method_names_its_callers():
    options = {n: m.options for n, m in EVERY.items() if n not in PUBLIC}
    assert not [
        n for n, o in options.items() if not (o.Extensions[options_pb2.services] or o.Extensions[options_pb2.scope])
    ]
