"""What a client may be told when something goes wrong: a fixed catalogue, in the shape that OpenAI's clients read.

Texts of exceptions never reach a client: they may hold paths, addresses in memory or other people's words. A
message of the catalogue has places in braces that are filled with checked values (numbers, names of fields, the
client's own words).
"""

import string
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One failure: HTTP status, OpenAI's type of error, and the message with its places."""

    status: int
    type: str
    message: str


_REQUEST, _SERVER = "invalid_request_error", "server_error"

CATALOGUE = {
    # the request
    "invalid_json": Entry(400, _REQUEST, "the body is not a JSON object"),
    "invalid_form": Entry(400, _REQUEST, "the body is not a well-formed multipart form"),
    "invalid_value": Entry(400, _REQUEST, "'{param}': {problem}"),
    "missing_parameter": Entry(400, _REQUEST, "'{param}' is missing"),
    "unknown_parameter": Entry(400, _REQUEST, "there is no parameter '{param}'"),
    "unsupported_parameter": Entry(400, _REQUEST, "'{param}' is not supported: {problem}"),
    "unsupported_media_type": Entry(
        415, _REQUEST, "send application/json or multipart/form-data, as the endpoint's documentation says"
    ),
    "unknown_words": Entry(400, _REQUEST, "'{param}' has words that the model does not know: {words}"),
    "prompt_too_long": Entry(400, _REQUEST, "'{param}' is longer than {limit} characters"),
    "too_much_work": Entry(
        422, _REQUEST, "pixels x frames x steps is {asked}, above this server's limit of {limit}"
    ),
    "too_many_media": Entry(422, _REQUEST, "the request has {count} media, the limit is {limit}"),
    "media_required": Entry(
        400, _REQUEST, "this model answers questions about a film or a picture; send one"
    ),
    "body_too_large": Entry(413, _REQUEST, "the body is larger than {limit} bytes"),
    "request_timeout": Entry(408, _REQUEST, "the body did not arrive in {limit} seconds"),
    "idempotency_conflict": Entry(409, _REQUEST, "this Idempotency-Key was used for another request"),
    # what a medium can be, see unireel.serving.intake
    "media_rejected": Entry(422, _REQUEST, "a medium cannot be accepted: {problem}"),
    # who and where
    "invalid_api_key": Entry(401, "authentication_error", "the API key is missing or wrong"),
    "cross_origin": Entry(403, "permission_error", "requests from pages of other sites are not served"),
    "unknown_host": Entry(421, "permission_error", "this server is not known under that host name"),
    "not_found": Entry(404, "not_found_error", "there is no such thing here"),
    "method_not_allowed": Entry(405, _REQUEST, "this address does not take that method"),
    "model_not_found": Entry(404, "not_found_error", "this server has no model of that name"),
    "video_not_found": Entry(404, "not_found_error", "there is no video of that id"),
    "video_not_ready": Entry(409, _REQUEST, "the video is not completed"),
    "model_cannot_edit": Entry(400, _REQUEST, "this model cannot edit"),
    "model_refuses": Entry(
        400, _REQUEST, "the model cannot do this: it is too long for it, or speaks of what is not there"
    ),
    "model_cannot_ask": Entry(400, _REQUEST, "this model cannot answer questions"),
    "model_cannot_reflect": Entry(400, _REQUEST, "this model cannot reflect"),
    # the server
    "queue_full": Entry(429, "rate_limit_error", "the queue is full; try again in {seconds} seconds"),
    "busy": Entry(
        429, "rate_limit_error", "too much is being sent at the same time; try again in {seconds} seconds"
    ),
    "storage_full": Entry(
        429, "rate_limit_error", "the storage is full; delete videos or try again in {seconds} seconds"
    ),
    "model_loading": Entry(503, _SERVER, "the model is being loaded; try again in {seconds} seconds"),
    "model_failed": Entry(503, _SERVER, "the model could not be loaded; the server's log says why"),
    "unreachable": Entry(
        503, _SERVER, "the server that holds this is not reachable; try again in {seconds} seconds"
    ),
    "shutting_down": Entry(503, _SERVER, "the server is shutting down"),
    "generation_failed": Entry(500, _SERVER, "the generation failed; the server's log says why"),
    "gave_up": Entry(500, _SERVER, "the server stopped each time it ran this job, so it gave up"),
    "internal_error": Entry(500, _SERVER, "something went wrong; the server's log says what"),
}


class ApiError(Exception):
    """A failure of the catalogue.

    Args:
        code: a key of :data:`CATALOGUE`.
        retry_after: seconds after which the client may try again, for the header of that name.
        values: what fills the message's places; ``param`` also names the field in the error object.

    Raises:
        KeyError: no such code, or a place of its message is not filled.
    """

    def __init__(self, code: str, *, retry_after: int | None = None, **values: Any) -> None:
        self.entry = CATALOGUE[code]
        self.code, self.retry_after = code, retry_after
        self.param = values.get("param")
        if retry_after is not None:
            values.setdefault("seconds", retry_after)
        self.message = self.entry.message.format(**values)
        super().__init__(self.message)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.entry.status

    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        error = {"message": self.message, "type": self.entry.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """``Retry-After`` where that is known, ``WWW-Authenticate`` where a key is missing."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": 'Bearer realm="unireel"'} if self.status == 401 else {})


def places(code: str) -> set[str]:
    """Names of the places in the message of ``code``."""
    return {name for _, name, _, _ in string.Formatter().parse(CATALOGUE[code].message) if name}
