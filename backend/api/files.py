"""File references: where a recording or a document lies. The files themselves are in somebody else's store."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.database import insert_missing
from backend.erasure import admit_conversation, admit_user
from backend.errors import NotFound, responses
from backend.idempotency import MaybeOnce, Written
from backend.models import File
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, only, read_page
from backend.state import Parts
from backend.values import Answer, Body, Id, Moment, Name, Number

router = APIRouter(prefix="/v1/files", tags=["files"])
FileId = Annotated[Id, Path(description="The application's id of the file.")]


class FileBody(Body):
    """A reference as a whole."""

    name: Name
    media_type: Annotated[str, Field(max_length=127, pattern=r"^[a-z0-9.+-]+/[A-Za-z0-9.+-]+$")]
    url: Annotated[str, Field(max_length=2000, pattern=r"^[a-z][a-z0-9+.-]*://[!-~]+$")]
    """Where it lies, e.g. `s3://bucket/key`. Stored and answered, never fetched."""
    bytes: Number | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    user_id: Id | None = None
    conversation_id: Id | None = None


class FileAnswer(Answer):
    """A reference."""

    id: str
    name: str
    media_type: str
    url: str
    bytes: int | None
    sha256: str | None
    user_id: str | None
    conversation_id: str | None
    created_at: Moment


@router.get("", operation_id="list_files", responses=responses())
async def list_files(
    parts: Parts,
    tenant: Tenant,
    user_id: Annotated[Id | None, Query()] = None,
    conversation_id: Annotated[Id | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[FileAnswer]:
    """References by id; of one user or one conversation, if asked for."""
    query = only(
        select(File).where(File.tenant == tenant), (File.user_id, user_id), (File.conversation_id, conversation_id)
    )
    async with parts.database.reading() as session:
        return await read_page(session, FileAnswer, query, [File.id], cursor=cursor, limit=limit)


@router.get("/{file_id}", operation_id="get_file", responses=responses(404))
async def get_file(parts: Parts, tenant: Tenant, file_id: FileId) -> FileAnswer:
    """One reference."""
    async with parts.database.reading() as session:
        row = await session.get(File, (tenant, file_id))
        if row is None:
            raise NotFound("file", file_id)
        return FileAnswer.model_validate(row)


@router.put("/{file_id}", operation_id="put_file", response_model=FileAnswer, responses=responses(409, 410))
async def put_file(once: MaybeOnce, tenant: Tenant, file_id: FileId, body: FileBody) -> Response:
    """Creates the reference, or replaces it."""

    async def write(session: AsyncSession) -> Written:
        await admit_user(session, tenant, body.user_id)
        await admit_conversation(session, tenant, body.conversation_id)
        values = body.model_dump()
        await insert_missing(session, File, tenant=tenant, id=file_id, created_at=now(), **values)
        row = await session.get_one(File, (tenant, file_id), with_for_update=True)
        for name, value in values.items():
            setattr(row, name, value)
        return Written(answer=FileAnswer.model_validate(row), user=body.user_id, conversation=body.conversation_id)

    return await once.perform(write, status=200)


@router.delete("/{file_id}", operation_id="delete_file", status_code=204, responses=responses())
async def delete_file(parts: Parts, tenant: Tenant, file_id: FileId) -> None:
    """Forgets the reference; the file itself is its store's."""
    async with parts.database.writing() as session:
        await session.execute(delete(File).where(File.tenant == tenant, File.id == file_id))
