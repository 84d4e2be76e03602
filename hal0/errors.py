"""What can go wrong, by name: one tree, each class with its code, HTTP status and a sentence.

    Hal0Error
      SettingsError
      RequestError       a caller asked for something that cannot be done
        InvalidRequest, NotHttp, HeadTooLarge, NotJson, NotJsonType, TooLarge, TooSlow,
        NoRoom, Unauthorized, TooManyFailures, TooManyStreams, Forbidden, BadHost, BadOrigin,
        RouteNotFound, MethodNotAllowed, KeyReused, BadPin
        NotFound         SlotNotFound, ModelNotFound, EngineNotFound, JobNotFound, TokenNotFound,
                         IncidentNotFound, ProbeNotFound, StarterNotFound
        Conflict         SlotExists, SlotBusy, SlotNotOffline, SlotPinned, SlotHasNoModel,
                         ModelTaken, ModelExists, ModelInUse, EngineExists, TokenExists,
                         JobSuperseded, JobNotFailed, JobFinished, NotAsCounted,
                         JobAlreadySent, IllegalTransition, ClaimLost, LaneTaken, NoPreviousVersion
      PullError          SourceNotFound, SourceIsALink, HostNotAllowed, SourceRefused,
                         SourceBadAnswer, SourceChanged, FetchedMismatch, FileInTheWay,
                         CopyNotAllowed, DiskFull, HubNotInstalled
        SourceFault      SourceUnreachable, SourceStalled, PartHeld: a machine tries these again
      PreloadError       FileNotFound, FileUnreadable, SizeMismatch, NotAGguf, Truncated,
                         ChecksumMismatch, EngineFileDiffers, FileChanged, LoadTimeout
      EngineError        EngineUnreachable, EngineTimeout, EngineBadAnswer, EngineRefused,
                         EngineRestarted, EngineUnauthorized, BackendNotAnswering
      JobError           WorkerCrashed, DrainTimeout, UnloadTimeout, InternalFault
      LemondError        DigestMismatch, BadTarball
      DatabaseError      DatabaseLocked, DatabaseFull, DatabaseOlder, DatabaseNewer, DatabaseCorrupt

A code is stable; a detail is for an operator: what, which slot, job or file, what to do.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class Hal0Error(Exception):
    """Any failure that hal0 knows by name."""

    code: ClassVar[str] = "hal0.error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str,
        *,
        evidence: Mapping[str, Any] | None = None,
        job_id: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.evidence = dict(evidence or {})
        self.job_id = job_id
        self.retry_after_s = retry_after_s

    def as_row(self) -> dict[str, Any]:
        """Return `{code, detail, evidence}`, the shape that rows keep and the wire shows."""
        return {"code": self.code, "detail": self.detail, "evidence": self.evidence}


class SettingsError(Hal0Error):
    """A setting has a value that cannot be used."""

    code = "settings.invalid"


class RequestError(Hal0Error):
    """A caller asked for something that cannot be done."""

    code = "request.error"
    status = 400


class InvalidRequest(RequestError):
    """A body, query or name is not of the documented shape; evidence lists each field."""

    code = "request.invalid"
    status = 422


class BadPin(InvalidRequest):
    """The pin file does not say which Lemonade server to install; evidence lists each field."""

    code = "lemond.bad_pin"


class NotJson(RequestError):
    """The body is not a JSON object."""

    code = "request.not_json"


class NotJsonType(RequestError):
    """The body is sent as something else than JSON in UTF-8, or compressed."""

    code = "request.media_type"
    status = 415


class TooLarge(RequestError):
    """The body is larger than any request of hal0 needs to be."""

    code = "request.too_large"
    status = 413


class Stopping(RequestError):
    """The API was told to stop and the request's time to end is over; send it again."""

    code = "api.stopping"
    status = 503


class TooSlow(RequestError):
    """The request did not arrive within HAL0_REQUEST_TIMEOUT_S."""

    code = "request.too_slow"
    status = 408


class NoRoom(RequestError):
    """The bodies of requests that wait for their answers take all the room there is; come again."""

    code = "request.no_room"
    status = 503


class NotHttp(RequestError):
    """What arrived is no HTTP request."""

    code = "request.not_http"


class HeadTooLarge(RequestError):
    """The request line and headers are larger than any request of hal0 needs to be."""

    code = "request.head_too_large"
    status = 431


class Unauthorized(RequestError):
    """The request has no token that is valid."""

    code = "auth.unauthorized"
    status = 401


class TooManyFailures(RequestError):
    """Too many tokens from this address were not valid; one that is valid still passes."""

    code = "auth.too_many_failures"
    status = 429


class TooManyStreams(RequestError):
    """So many listen to events already that one more would be told late."""

    code = "request.too_many_streams"
    status = 503


class Forbidden(RequestError):
    """No rule lets this caller use this route."""

    code = "auth.forbidden"
    status = 403


class BadHost(Forbidden):
    """The Host header names another machine (DNS rebinding)."""

    code = "auth.bad_host"


class BadOrigin(Forbidden):
    """The request comes from a page of another site."""

    code = "auth.bad_origin"


class RouteNotFound(RequestError):
    """No such route."""

    code = "request.not_found"
    status = 404


class MethodNotAllowed(RequestError):
    """The route exists, this method on it does not."""

    code = "request.method_not_allowed"
    status = 405


class KeyReused(RequestError):
    """The Idempotency-Key was used within a day for another request."""

    code = "request.idempotency_key_reused"
    status = 422


class NotFound(RequestError):
    """What was named does not exist."""

    code = "request.unknown_name"
    status = 404


class SlotNotFound(NotFound):
    """There is no slot of this name."""

    code = "slot.not_found"


class ModelNotFound(NotFound):
    """There is no model of this name."""

    code = "model.not_found"


class EngineNotFound(NotFound):
    """There is no engine of this name."""

    code = "engine.not_found"


class JobNotFound(NotFound):
    """There is no job of this id."""

    code = "job.not_found"


class TokenNotFound(NotFound):
    """There is no token of this name."""

    code = "token.not_found"


class IncidentNotFound(NotFound):
    """There is no incident of this id."""

    code = "incident.not_found"


class ProbeNotFound(NotFound):
    """Nobody has looked at what this machine has."""

    code = "probe.not_found"


class StarterNotFound(NotFound):
    """No model of this name is offered to begin with."""

    code = "starter.not_found"


class Conflict(RequestError):
    """The request contradicts what is there."""

    code = "request.conflict"
    status = 409


class SlotExists(Conflict):
    """A living slot has this name already."""

    code = "slot.exists"


class SlotBusy(Conflict):
    """The slot is in use: it has unfinished jobs, or holds a model that must be unloaded first."""

    code = "slot.busy"


class SlotNotOffline(Conflict):
    """Only an offline slot may change its model or engine."""

    code = "slot.not_offline"


class SlotPinned(Conflict):
    """The slot is pinned; an unload needs `even_if_pinned`."""

    code = "slot.pinned"


class SlotHasNoModel(Conflict):
    """The slot has no model assigned and the request names none."""

    code = "slot.no_model"


class ModelTaken(Conflict):
    """Another slot of this engine has this model, or its file: an engine unloads by name."""

    code = "slot.model_taken"


class ModelExists(Conflict):
    """A living model has this name already."""

    code = "model.exists"


class ModelInUse(Conflict):
    """A slot holds or wants this model."""

    code = "model.in_use"


class EngineExists(Conflict):
    """An engine has this name, or is at this address, already."""

    code = "engine.exists"


class TokenExists(Conflict):
    """A token has or had this name already."""

    code = "token.exists"


class JobSuperseded(Conflict):
    """A newer chain of the same slot is unfinished, or took this job's place."""

    code = "job.superseded"


class JobNotFailed(Conflict):
    """Only a failed job can be retried; what was cancelled is asked for anew."""

    code = "job.not_failed"


class JobFinished(Conflict):
    """The job has ended; there is nothing to cancel."""

    code = "job.finished"


class NotAsCounted(Conflict):
    """Other jobs would be taken than were counted before it was confirmed; nothing was done."""

    code = "job.not_as_counted"


class JobAlreadySent(Conflict):
    """The engine has the request and cannot be told to stop."""

    code = "job.already_sent"


class IllegalTransition(Conflict):
    """The slot is not in the state that this change starts from, or no edge leads there."""

    code = "slot.illegal_transition"


class ClaimLost(Conflict):
    """The job belongs to another owner or attempt now; whoever sees this writes nothing."""

    code = "job.claim_lost"


class LaneTaken(Conflict):
    """The engine's one place for a load is held by another load."""

    code = "engine.lane_taken"


class NoPreviousVersion(Conflict):
    """No other version of the Lemonade server is kept to go back to."""

    code = "lemond.no_previous"


class PullError(Hal0Error):
    """The bytes of a model could not be brought."""

    code = "pull.failed"
    status = 502


class SourceNotFound(PullError):
    """The source of a model does not exist or cannot be read."""

    code = "pull.source_not_found"


class SourceIsALink(PullError):
    """A symbolic link lies on the way to the source; a file is named by its real path."""

    code = "pull.source_is_a_link"
    status = 422


class HostNotAllowed(PullError):
    """The source is, or redirects to, a host that is not in HAL0_PULL_HOSTS, or that is private."""

    code = "pull.host_not_allowed"
    status = 422


class SourceRefused(PullError):
    """The source does not give the file to this caller: it wants a key, or forbids it."""

    code = "pull.source_refused"


class SourceBadAnswer(PullError):
    """The source's answer is no download of this file: its length, range, coding or redirect."""

    code = "pull.bad_answer"


class FetchedMismatch(PullError):
    """What was fetched has another digest than registered; it is kept aside as `.bad`."""

    code = "pull.checksum_mismatch"


class FileInTheWay(PullError):
    """Another file has the name that a model's file is to have; nothing was replaced."""

    code = "pull.file_in_the_way"
    status = 409


class HubNotInstalled(PullError):
    """An `hf://` source needs the extra `hub` of hal0, which is not installed."""

    code = "pull.hub_not_installed"
    status = 501


class SourceFault(PullError):
    """The network or the source failed in a way that may pass; a machine tries again."""

    code = "pull.source_fault"


class SourceUnreachable(SourceFault):
    """The source cannot be reached, broke off, or says that it is busy."""

    code = "pull.source_unreachable"


class SourceStalled(SourceFault):
    """The source sent nothing, or next to nothing, for HAL0_PULL_STALL_S."""

    code = "pull.source_stalled"
    status = 504


class PartHeld(SourceFault):
    """Another process writes the same file, and does not let go of it."""

    code = "pull.part_held"
    status = 503


class CopyNotAllowed(PullError):
    """The file lies on another disk and copying it was not asked for."""

    code = "pull.copy_not_allowed"
    status = 409


class DiskFull(PullError):
    """There is not enough room in the models folder."""

    code = "pull.disk_full"
    status = 507


class SourceChanged(PullError):
    """The source changed while it was read."""

    code = "pull.source_changed"


class PreloadError(Hal0Error):
    """A model is not fit to load (ADR-0007); the engine was not asked, except for `LoadTimeout`."""

    code = "preload.error"
    status = 422


class FileNotFound(PreloadError):
    """There is no regular file where the model should lie."""

    code = "preload.file_not_found"


class FileUnreadable(PreloadError):
    """The file is there and cannot be read."""

    code = "preload.file_unreadable"


class SizeMismatch(PreloadError):
    """The file is longer or shorter than registered."""

    code = "preload.size_mismatch"


class NotAGguf(PreloadError):
    """The header is not one of a GGUF file that hal0 understands."""

    code = "preload.not_a_gguf"


class Truncated(PreloadError):
    """A tensor lies beyond the end of the file, or a shard is missing."""

    code = "preload.truncated"


class ChecksumMismatch(PreloadError):
    """The sha256 of the file is not the registered one."""

    code = "preload.checksum_mismatch"


class EngineFileDiffers(PreloadError):
    """The engine would open another file, or download one."""

    code = "preload.engine_file_differs"


class FileChanged(PreloadError):
    """The file was replaced or written between its validation and the load."""

    code = "preload.file_changed"


class LoadTimeout(PreloadError):
    """The load did not end within its wall-clock limit; no machine repeats it."""

    code = "preload.load_timeout"
    status = 504


class InferenceError(Hal0Error):
    """The request for inference cannot be served by its slot now."""

    code = "inference.error"
    status = 503


class SlotLoading(InferenceError):
    """The slot's model is not loaded yet; come again."""

    code = "slot.loading"


class SlotDraining(InferenceError):
    """The slot is about to be unloaded; requests that run may end, new ones are refused."""

    code = "slot.draining"


class SlotUnloaded(InferenceError):
    """The slot's model was unloaded, or is not to be loaded by a request; load it."""

    code = "slot.unloaded"


class SlotParked(InferenceError):
    """The slot keeps losing its model; no machine loads it for now."""

    code = "slot.parked"


class SlotLoadFailed(InferenceError):
    """The slot is in error, or a load of what it wants has failed; retry its job."""

    code = "slot.load_failed"
    status = 502


class SlotFull(InferenceError):
    """So many requests wait for this slot already that no further one may."""

    code = "slot.full"
    status = 429


class ModelAmbiguous(Conflict):
    """Several slots hold this model; name the slot instead."""

    code = "model.ambiguous"


class EngineError(Hal0Error):
    """The inference server did not do what it was asked for."""

    code = "engine.error"
    status = 502


class EngineUnreachable(EngineError):
    """Nothing accepts connections at the engine's address, so nothing was sent."""

    code = "engine.unreachable"

    @property
    def is_gone(self) -> bool:
        """Whether certainly no process listens there, and not only one that is too busy."""
        return bool(self.evidence.get("nobody_listens"))


class EngineLost(EngineError):
    """Nobody was at the engine's address for longer than its grace; its slots are in error."""

    code = "engine.lost"


class EngineTimeout(EngineError):
    """The engine did not answer in time."""

    code = "engine.timeout"
    status = 504


class EngineBadAnswer(EngineError):
    """The engine's answer is not of the documented shape, or broke off."""

    code = "engine.bad_answer"


class EngineRefused(EngineError):
    """The engine answered with an error; its message is in the detail."""

    code = "engine.refused"


class EngineRestarted(EngineError):
    """The engine is another process than the one that was asked."""

    code = "engine.restarted"


class EngineUnauthorized(EngineError):
    """The engine wants another key than is in its key file; `hal0 doctor` names that."""

    code = "engine.unauthorized"


class BackendNotAnswering(EngineError):
    """The engine lists the model, its backend does not answer."""

    code = "engine.backend_not_answering"


class JobError(Hal0Error):
    """A job could not be carried through."""

    code = "job.error"


class WorkerCrashed(JobError):
    """Workers died under this job several times in a row."""

    code = "job.worker_crashed"


class DrainTimeout(JobError):
    """Requests were still running when the time to drain was over; the model stays."""

    code = "slot.drain_timeout"
    status = 409


class UnloadTimeout(JobError):
    """The engine did not finish an unload in time; its mark stays on the slot."""

    code = "engine.unload_timeout"
    status = 504


class InternalFault(JobError):
    """hal0 has a bug; the log of the worker has the traceback."""

    code = "hal0.internal"


class LemondError(Hal0Error):
    """A Lemonade server could not be installed; the version that was current still is."""

    code = "lemond.not_installed"


class DigestMismatch(LemondError):
    """The tarball has another sha256 than its pin says; it is kept aside as `.bad`."""

    code = "lemond.digest_mismatch"


class BadTarball(LemondError):
    """The tarball holds no server, or what must not be unpacked; nothing was unpacked."""

    code = "lemond.bad_tarball"


class DatabaseError(Hal0Error):
    """The database cannot be used."""

    code = "db.error"


class DatabaseLocked(DatabaseError):
    """Another process holds the database longer than HAL0_BUSY_TIMEOUT_S."""

    code = "db.locked"
    status = 503


class DatabaseFull(DatabaseError):
    """The disk under the database is full."""

    code = "db.full"
    status = 507


class DatabaseUnwritable(DatabaseError):
    """The file cannot be written now: an I/O error, no permission, no free descriptor."""

    code = "db.unwritable"
    status = 503


class DatabaseOlder(DatabaseError):
    """The schema is older than this hal0; run `hal0 db upgrade`."""

    code = "db.older"
    status = 503


class DatabaseNewer(DatabaseError):
    """The schema is newer than this hal0; install the newer hal0."""

    code = "db.newer"
    status = 503


class DatabaseCorrupt(DatabaseError):
    """The file is not a database of hal0, or is damaged."""

    code = "db.corrupt"


def tree(root: type[Hal0Error] = Hal0Error) -> Iterator[type[Hal0Error]]:
    """Yield `root` and every class below it, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)
