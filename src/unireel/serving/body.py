"""From a request's body to a checked shape and its uploads, whichever way it was sent."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from unireel.serving.errors import ApiError

MAX_FIELDS = 64
MAX_FIELD_BYTES = 256 * 1024
_BRACKETS = re.compile(r"([a-z_0-9]+)\[([a-z_0-9]+)\]")
_KINDS = {"missing": "missing_parameter", "extra_forbidden": "unknown_parameter"}

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class Body:
    """Fields as they came, and the bytes of uploaded files by the name of their field; file names are dropped."""

    fields: dict[str, Any]
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def parse(self, shape: type[S]) -> S:
        """The fields as ``shape``.

        Raises:
            ApiError: one is missing, unknown, or has an impossible value; it is named, its value is not repeated.
        """
        try:
            return shape.model_validate(self.fields)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            param = ".".join(str(each) for each in first["loc"])[:80]
            code = _KINDS.get(first["type"], "invalid_value")
            problem = first["msg"].lower() if code == "invalid_value" else ""
            raise ApiError(code, param=param, problem=problem) from None


async def read_body(request: Request, max_files: int = 0) -> Body:
    """Read JSON, or where files may come (``max_files`` > 0) also a multipart form.

    A form writes the field ``b`` of the object ``a`` as ``a[b]``, as OpenAI's client does.

    Raises:
        ApiError: the body is neither, or is not well-formed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return Body(_json(await request.body()))
    if kind != "multipart/form-data" or max_files == 0:
        raise ApiError("unsupported_media_type")
    return await _form(request, max_files)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError("invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError("invalid_json")
    return value


async def _form(request: Request, max_files: int) -> Body:
    body = Body({})
    try:
        async with request.form(
            max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    body.files.setdefault(name.removesuffix("[]"), []).append(await value.read())
                else:
                    _put(body.fields, name, value)
    except (HTTPException, MultiPartException, MultipartParseError, UnicodeDecodeError, KeyError, ValueError):
        raise ApiError("invalid_form") from None
    return body


def _put(fields: dict[str, Any], name: str, value: str) -> None:
    nested = _BRACKETS.fullmatch(name)
    if nested is None:
        if name in fields:
            raise ApiError("invalid_value", param=name[:80], problem="it is given twice")
        fields[name] = value
        return
    outer = fields.setdefault(nested[1], {})
    if not isinstance(outer, dict) or nested[2] in outer:
        raise ApiError("invalid_value", param=nested[1], problem="it is given twice")
    outer[nested[2]] = value
