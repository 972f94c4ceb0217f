"""What can go wrong with schema subjects and versions; each reason is an error code of the registry API at the door."""

from __future__ import annotations

from counterfoil_chassis.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)


class SubjectNotFoundError(NotFoundError):
    """The workspace has no such subject."""

    reason = "SUBJECT_NOT_FOUND"


class SchemaVersionNotFoundError(NotFoundError):
    """The subject has no such version."""

    reason = "SCHEMA_VERSION_NOT_FOUND"


class SchemaNotFoundError(NotFoundError):
    """The workspace, or the subject, has no such schema."""

    reason = "SCHEMA_NOT_FOUND"


class SubjectSoftDeletedError(NotFoundError):
    """The subject was softly deleted already; what is left is to delete it for good."""

    reason = "SUBJECT_SOFT_DELETED"


class SubjectNotSoftDeletedError(NotFoundError):
    """A subject is deleted for good only after it was softly deleted."""

    reason = "SUBJECT_NOT_SOFT_DELETED"


class SchemaVersionSoftDeletedError(NotFoundError):
    """The version was softly deleted already; what is left is to delete it for good."""

    reason = "SCHEMA_VERSION_SOFT_DELETED"


class SchemaVersionNotSoftDeletedError(NotFoundError):
    """A version is deleted for good only after it was softly deleted."""

    reason = "SCHEMA_VERSION_NOT_SOFT_DELETED"


class SubjectConfigNotFoundError(NotFoundError):
    """The subject says nothing itself of how it takes new versions."""

    reason = "SUBJECT_CONFIG_NOT_FOUND"


class SubjectModeNotFoundError(NotFoundError):
    """The subject says nothing itself of whether it can be written."""

    reason = "SUBJECT_MODE_NOT_FOUND"


class SchemaIncompatibleError(FailedPreconditionError):
    """The schema breaks the compatibility that its subject asks for; the violations say where, with a record."""

    reason = "SCHEMA_INCOMPATIBLE"


class SchemaInvalidError(InvalidArgumentError):
    """It is no schema, refers to something that is nowhere, or is nested too deeply."""

    reason = "SCHEMA_INVALID"


class SchemaTypeUnsupportedError(InvalidArgumentError):
    """The schema's language is not served here: JSON Schema is."""

    reason = "SCHEMA_TYPE_UNSUPPORTED"


class SchemaTooLargeError(InvalidArgumentError):
    """The schema, alone or with all that it refers to, is over the limit."""

    reason = "SCHEMA_TOO_LARGE"


class SchemaMetadataInvalidError(InvalidArgumentError):
    """The schema's metadata have not the form they must have."""

    reason = "SCHEMA_METADATA_INVALID"


class SchemaRuleSetInvalidError(InvalidArgumentError):
    """The schema's rules have not the form they must have."""

    reason = "SCHEMA_RULE_SET_INVALID"


class SchemaVersionInvalidError(InvalidArgumentError):
    """This is no version: a number from 1, or `latest`."""

    reason = "SCHEMA_VERSION_INVALID"


class SubjectInvalidError(InvalidArgumentError):
    """This cannot be a subject's name."""

    reason = "SUBJECT_INVALID"


class SubjectNotWritableError(FailedPreconditionError):
    """The subject's mode does not allow it."""

    reason = "SUBJECT_NOT_WRITABLE"


class SchemaReferencedError(FailedPreconditionError):
    """Other schemas refer to this version, which has to stay as long as they do."""

    reason = "SCHEMA_REFERENCED"


class SchemaIdTakenError(FailedPreconditionError):
    """The id or version stands for another schema."""

    reason = "SCHEMA_ID_TAKEN"


class SubjectModeInvalidError(FailedPreconditionError):
    """The subject cannot have this mode as it is."""

    reason = "SUBJECT_MODE_INVALID"


class SubjectChangedError(AbortedError):
    """Others registered under the subject meanwhile, time and again; send it again."""

    reason = "SUBJECT_CHANGED"


class SchemasBusyError(ResourceExhaustedError):
    """More schemas wait to be compiled or compared than can be in time."""

    reason = "SCHEMAS_BUSY"
