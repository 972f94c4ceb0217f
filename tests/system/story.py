"""A request for every public method, in an order in which each finds what it needs.

What is asked of data and models is here; what is asked of people, policies and proofs in `trust_story`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from counterfoil.contracts.v1 import contracts_pb2
from counterfoil.governance.v1 import keys_pb2, principals_pb2, receipts_pb2, workspaces_pb2
from counterfoil.ingest.v1 import imports_pb2, quarantine_pb2, queries_pb2, records_pb2, sources_pb2
from counterfoil.models.v1 import forecasts_pb2, models_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tests.system.doors import Door, public_methods
from tests.system.installation import until
from tests.system.tenant import DAY_SALES, Tenant, ok, sales_csv

MODEL = "shop_sales"
CONTRACT = DAY_SALES.format(version="1.0.0")
SALE = {"sold_at": "2025-05-01T09:00:00Z", "shop": "north", "amount": 12.5}

EXCEPTIONS = {
    "ImportService/UploadImport": "client streaming has no REST form; a hand-written route takes the file as the body",
    "QueryService/StreamQuery": "Arrow goes out by gRPC only",
    "RecordService/TailRecords": "a stream without end, lines or server-sent events by REST: see test_tail",
    "AuditService/ExportAudit": "a hand-written route answers the archive itself",
}
"""Public methods without a REST form of their own, and why."""


@dataclass
class World:
    """One workspace in which the story is told, and what was asked and answered there."""

    tenant: Tenant
    admin_key: str
    requests: dict[str, Message] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Keys of other principals than the first, by the principal."""

    @property
    def workspace(self) -> str:
        """The workspace's id."""
        return self.tenant.workspace

    def tell(self, door: Door, story: Mapping[str, "Step"]) -> None:
        """Ask every question of a story through one door and keep the answers."""
        for name, step in story.items():
            step.before(self)
            self.requests[name] = step.request(self)
            key = self.admin_key if step.as_admin else self.keys.get(step.principal, self.tenant.key)
            self.answers[name] = door.call(public_methods()[name], self.requests[name], key=key)


@dataclass(frozen=True)
class Step:
    """One question."""

    request: Callable[[World], Message]
    before: Callable[[World], object] = lambda world: None
    as_admin: bool = False
    principal: str = ""


def _import_sales(world: World) -> None:
    world.answers["upload"] = world.tenant.upload("sales", sales_csv(140), form="csv", name="sales.csv")
    assert world.answers["upload"]["state"] == "SUCCEEDED", world.answers["upload"]


def _wait_for_training(world: World) -> None:
    def ended() -> bool | None:
        found = ok(world.tenant.http.get(f"/v1/models/{MODEL}/versions/1"))
        return None if found["state"] in ("DRAFT", "TRAINED") and "error" not in found else True

    until(ended, seconds=60, what="the training has not ended")


def _train_another(world: World) -> None:
    world.tenant.train(MODEL)


def _wait_for_ledger(world: World) -> None:
    until(
        lambda: ok(world.tenant.http.get("/v1/receipts"))["receipts"] or None,
        seconds=60,
        what="the ledger has no receipt",
    )


def _key(world: World) -> str:
    return world.answers["KeyService/CreateKey"]["key"]["key_id"]


def _source(world: World) -> str:
    return world.answers["SourceService/CreateSource"]["source"]["source_id"]


def _receipt(world: World) -> str:
    return world.answers["ForecastService/CreateForecast"]["receipt_id"]


def _in_a_year() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=365)


def _create_key(world: World) -> Message:
    request = keys_pb2.CreateKeyRequest(
        principal_id="robot", display_name="Robot's", scopes=["ingest.read"], request_id="make-key"
    )
    request.expires_at.FromDatetime(_in_a_year())
    return request


def _update_workspace(world: World) -> Message:
    return workspaces_pb2.UpdateWorkspaceRequest(
        workspace=workspaces_pb2.Workspace(workspace_id=world.workspace, timezone="Europe/Paris"),
        update_mask=FieldMask(paths=["timezone"]),
    )


def _append_records(world: World) -> Message:
    good = [{**SALE, "message_id": f"sale-{number}"} for number in range(3)]
    return records_pb2.AppendRecordsRequest(
        dataset="sales", records=orjson.dumps([*good, {"shop": "north"}]), request_id="append"
    )


def _create_model(world: World) -> Message:
    series = models_pb2.SeriesSpec(
        dataset="sales",
        time_field="sold_at",
        value_field="amount",
        aggregation=models_pb2.SeriesSpec.SUM,
        dimension="shop",
    )
    forecast = models_pb2.ForecastSpec(series=series, horizon_days=7, season_days=7, coverage=0.8, min_active_days=60)
    return models_pb2.CreateModelRequest(
        model_id=MODEL, display_name="Shops", purpose="planning", forecast=forecast, request_id="make-model"
    )


def _quarantined(world: World) -> Message:
    [record] = world.answers["QuarantineService/ListQuarantinedRecords"]["quarantined_records"]
    return quarantine_pb2.GetQuarantinedRecordRequest(quarantine_id=record["quarantine_id"])


STORY: dict[str, Step] = {
    "WorkspaceService/CreateWorkspace": Step(
        lambda w: workspaces_pb2.CreateWorkspaceRequest(
            workspace_id=f"{w.workspace}-child", timezone="Asia/Tokyo", request_id=f"make-{w.workspace}"
        ),
        as_admin=True,
    ),
    "WorkspaceService/GetWorkspace": Step(lambda w: workspaces_pb2.GetWorkspaceRequest(workspace_id=w.workspace)),
    "WorkspaceService/ListWorkspaces": Step(lambda w: workspaces_pb2.ListWorkspacesRequest(page_size=10)),
    "WorkspaceService/UpdateWorkspace": Step(_update_workspace),
    "WorkspaceService/SetQuotas": Step(
        lambda w: workspaces_pb2.SetQuotasRequest(
            workspace_id=w.workspace,
            quotas=workspaces_pb2.Quotas(requests_per_second=100_000, records_per_day=1_000_000_000),
        ),
        as_admin=True,
    ),
    "PrincipalService/CreatePrincipal": Step(
        lambda w: principals_pb2.CreatePrincipalRequest(
            principal_id="robot", kind=principals_pb2.Principal.PROGRAM, request_id="make-principal"
        )
    ),
    "PrincipalService/GetPrincipal": Step(lambda w: principals_pb2.GetPrincipalRequest(principal_id="robot")),
    "PrincipalService/ListPrincipals": Step(lambda w: principals_pb2.ListPrincipalsRequest()),
    "KeyService/CreateKey": Step(_create_key),
    "KeyService/GetKey": Step(lambda w: keys_pb2.GetKeyRequest(key_id=_key(w))),
    "KeyService/ListKeys": Step(lambda w: keys_pb2.ListKeysRequest(principal_id="robot")),
    "KeyService/RevokeKey": Step(lambda w: keys_pb2.RevokeKeyRequest(key_id=_key(w))),
    "PrincipalService/DisablePrincipal": Step(lambda w: principals_pb2.DisablePrincipalRequest(principal_id="robot")),
    "ContractService/CheckContract": Step(lambda w: contracts_pb2.CheckContractRequest(document=CONTRACT)),
    "ContractService/SubmitContract": Step(lambda w: contracts_pb2.SubmitContractRequest(document=CONTRACT)),
    "ContractService/ActivateContractVersion": Step(
        lambda w: contracts_pb2.ActivateContractVersionRequest(
            contract_id="day-sales", version="1.0.0", reason="the first one"
        )
    ),
    "ContractService/GetContract": Step(lambda w: contracts_pb2.GetContractRequest(contract_id="day-sales")),
    "ContractService/ListContracts": Step(lambda w: contracts_pb2.ListContractsRequest()),
    "ContractService/GetContractVersion": Step(
        lambda w: contracts_pb2.GetContractVersionRequest(contract_id="day-sales", version="1.0.0")
    ),
    "ContractService/ListContractVersions": Step(
        lambda w: contracts_pb2.ListContractVersionsRequest(contract_id="day-sales")
    ),
    "SourceService/CreateSource": Step(
        lambda w: sources_pb2.CreateSourceRequest(
            display_name="Shop",
            mappings=[sources_pb2.SourceMapping(type="track", dataset="events")],
            request_id="make-source",
        )
    ),
    "SourceService/GetSource": Step(lambda w: sources_pb2.GetSourceRequest(source_id=_source(w))),
    "SourceService/ListSources": Step(lambda w: sources_pb2.ListSourcesRequest()),
    "SourceService/RotateKey": Step(
        lambda w: sources_pb2.RotateKeyRequest(source_id=_source(w), keep_previous_for=Duration(seconds=60))
    ),
    "RecordService/AppendRecords": Step(_append_records),
    "ImportService/ListImports": Step(lambda w: imports_pb2.ListImportsRequest(), before=_import_sales),
    "ImportService/GetImport": Step(lambda w: imports_pb2.GetImportRequest(import_id=w.answers["upload"]["import_id"])),
    "RecordService/ListRecords": Step(
        lambda w: records_pb2.ListRecordsRequest(dataset="sales", from_offset=1, page_size=5)
    ),
    "RecordService/ListDatasets": Step(lambda w: records_pb2.ListDatasetsRequest()),
    "RecordService/CreateSnapshot": Step(lambda w: records_pb2.CreateSnapshotRequest(dataset="sales")),
    "QuarantineService/ListQuarantinedRecords": Step(
        lambda w: quarantine_pb2.ListQuarantinedRecordsRequest(dataset="sales")
    ),
    "QuarantineService/GetQuarantinedRecord": Step(_quarantined),
    "QueryService/RunQuery": Step(
        lambda w: queries_pb2.RunQueryRequest(
            sql="SELECT shop, count(*) AS n, sum(amount::DECIMAL(18,2)) AS total, max(sold_at) AS last "
            "FROM sales WHERE amount > ? GROUP BY shop ORDER BY shop",
            parameters=b"[0]",
            max_rows=10,
        )
    ),
    "ModelService/CreateModel": Step(_create_model),
    "ModelService/GetModel": Step(lambda w: models_pb2.GetModelRequest(model_id=MODEL)),
    "ModelService/ListModels": Step(lambda w: models_pb2.ListModelsRequest()),
    "ModelService/TrainModelVersion": Step(
        lambda w: models_pb2.TrainModelVersionRequest(model_id=MODEL, request_id="train")
    ),
    "ModelService/GetModelVersion": Step(
        lambda w: models_pb2.GetModelVersionRequest(model_id=MODEL, version=1), before=_wait_for_training
    ),
    "ModelService/ListModelVersions": Step(lambda w: models_pb2.ListModelVersionsRequest(model_id=MODEL)),
    "ModelService/PromoteModelVersion": Step(
        lambda w: models_pb2.PromoteModelVersionRequest(model_id=MODEL, version=1, reason="passed")
    ),
    "ModelService/RollbackModel": Step(
        lambda w: models_pb2.RollbackModelRequest(model_id=MODEL, reason="the older one was right"),
        before=_train_another,
    ),
    "ModelService/ListModelEvents": Step(lambda w: models_pb2.ListModelEventsRequest(model_id=MODEL)),
    "ForecastService/CreateForecast": Step(
        lambda w: forecasts_pb2.CreateForecastRequest(model_id=MODEL, horizon_days=5, series=["north"])
    ),
    "ForecastService/GetForecast": Step(
        lambda w: forecasts_pb2.GetForecastRequest(
            forecast_id=w.answers["ForecastService/CreateForecast"]["forecast_id"]
        )
    ),
    "ForecastService/ListForecasts": Step(lambda w: forecasts_pb2.ListForecastsRequest(model_id=MODEL)),
    "ReceiptService/GetReceipt": Step(lambda w: receipts_pb2.GetReceiptRequest(receipt_id=_receipt(w))),
    "ReceiptService/ListReceipts": Step(
        lambda w: receipts_pb2.ListReceiptsRequest(producer="models"), before=_wait_for_ledger
    ),
    "ReceiptService/ReplayReceipt": Step(lambda w: receipts_pb2.ReplayReceiptRequest(receipt_id=_receipt(w))),
}
"""`Service/Method` to its question, in order."""
