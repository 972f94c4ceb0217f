"""What is read of files beyond their rows, and one that is taken back."""

from counterfoil.ingest.v1 import imports_pb2

from tests.system.story import Step, World


def _import_another(world: World) -> None:
    content = b"sold_at,shop,amount,note\n2031-01-01T10:00:00,north,1,wrong\n"
    world.answers["another"] = world.tenant.upload("sales", content, form="csv", name="wrong.csv")
    assert world.answers["another"]["rows_accepted"] == 1, world.answers["another"]


def _import_through_a_connection(world: World) -> None:
    state = b'{"type":"STREAM","stream":{"stream_descriptor":{"name":"sales"},"stream_state":{"sold_at":"2031"}}}'
    told = b'{"type":"STATE","state":' + state + b"}\n"
    done = world.tenant.upload("", told, form="airbyte", connection="till")
    assert done["state"] == "SUCCEEDED", done


IMPORTS_STORY: dict[str, Step] = {
    "ImportService/GetConnection": Step(
        lambda w: imports_pb2.GetConnectionRequest(connection="till"), before=_import_through_a_connection
    ),
    "ImportService/ListImportMappings": Step(lambda w: imports_pb2.ListImportMappingsRequest(page_size=3)),
    "ImportService/RevertImport": Step(
        lambda w: imports_pb2.RevertImportRequest(
            import_id=w.answers["another"]["import_id"], reason="of the wrong year"
        ),
        before=_import_another,
    ),
}
