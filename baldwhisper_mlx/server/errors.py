"""Errors of the HTTP API, in OpenAI's shape: message, type, param and code.

OpenAI's API reference and the error classes of the `openai` Python package define the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

INTERNAL = "the server failed to process the request; its own log says why"

CLOSE = {"Connection": "close"}
"""Headers of an answer to a request whose body has not been read to its end."""


class ApiError(Exception):
    """An error that a client gets as JSON.

    Args:
        status: of the HTTP answer.
        message: for people; no path of the server's.
        param: the field that is wrong.
        code: for programs.
        headers: of the answer, beside the usual ones.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        error = {
            "message": self.message,
            "type": _type_of(self.status),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> Response:
        """The HTTP answer."""
        return JSONResponse(self.body(), self.status, self.headers)


def bad_value(param: str, message: str) -> ApiError:
    """The error of a field whose value is not possible."""
    return ApiError(400, message, param=param, code="invalid_value")


async def answer_api_error(_request: Request, error: Exception) -> Response:
    """The answer to an `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The answer to an error of the routing: no such path, or another method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = {
        404: f"there is no {path}; docs/server.md lists the paths",
        405: f"{path} does not take {request.method}",
    }.get(error.status_code, HTTPStatus(error.status_code).phrase)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return ApiError(error.status_code, message, code=code, headers=error.headers).response()


async def answer_failure(_request: Request, _error: Exception) -> Response:
    """The answer to an error of the server's own; it is logged, and the client gets no detail."""
    return ApiError(500, INTERNAL, code="internal_error").response()


def _type_of(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
