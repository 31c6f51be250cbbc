"""`trace-dsl lsp`: the language server protocol over standard input and output. All answers come from other modules."""

from __future__ import annotations

import asyncio
from importlib import metadata
from pathlib import Path

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from trace_dsl.errors import SpecError
from trace_dsl.lsp.actions import KINDS, actions
from trace_dsl.lsp.completion import TRIGGERS, completion
from trace_dsl.lsp.diagnostics import diagnostics
from trace_dsl.lsp.document import Document, Surroundings, analyse
from trace_dsl.lsp.edits import formatting
from trace_dsl.lsp.hints import hints
from trace_dsl.lsp.hover import hover
from trace_dsl.lsp.navigation import definition, references
from trace_dsl.lsp.outline import outline
from trace_dsl.lsp.rename import rename, renamed_range
from trace_dsl.lsp.settings import SECTION, Settings, read_settings, surroundings

PAUSE_SECONDS = 0.1
_UNSAVED = "unsaved.trace"
_WATCHED = ("**/*.trace", "**/pyproject.toml", "**/*.yaml", "**/*.yml")


class RequestFailed(JsonRpcException):
    """A request that was understood and is refused, with the reason for the user."""

    CODE = types.LSPErrorCodes.RequestFailed.value


class TraceServer(LanguageServer):
    """Holds the texts that the editor has open, with what was last read from them."""

    def __init__(self) -> None:
        # Specs are short: whole texts are sent, so that nobody has to agree on what a line is.
        super().__init__("trace-dsl", _version(), text_document_sync_kind=types.TextDocumentSyncKind.Full)
        self.settings = Settings()
        self._open: dict[str, Document] = {}
        self._around: dict[Path, Surroundings] = {}
        self._pauses: dict[str, asyncio.TimerHandle] = {}

    def document(self, identifier: types.TextDocumentIdentifier) -> Document | None:
        """An open document; None for one that is not open."""
        return self._open.get(identifier.uri)

    def read(self, uri: str, *, typing: bool = False) -> None:
        """Read the text that the editor has for a document, and tell what is wrong with it: while someone is typing,
        once there is a pause.
        """
        path = to_fs_path(uri)
        where = self._root / _UNSAVED if path is None else Path(path)
        document = analyse(
            uri,
            self.workspace.get_text_document(uri).source,
            where,
            encoding=self.workspace.position_encoding or types.PositionEncodingKind.Utf16,
            around=self._surroundings(where.parent),
        )
        self._open[uri] = document
        self._forget_pause(uri)
        if typing:
            later = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._tell, uri)
            self._pauses[uri] = later
        else:
            self._tell(uri)

    def read_again(self) -> None:
        """Read every open document and the settings around it again: a file or a setting has changed."""
        self._around.clear()
        for uri in tuple(self._open):
            self.read(uri)
        workspace = self.client_capabilities.workspace
        if workspace is not None and workspace.inlay_hint is not None and workspace.inlay_hint.refresh_support:
            self.workspace_inlay_hint_refresh(None)

    def close(self, uri: str) -> None:
        """Forget a document and take its findings back."""
        self._open.pop(uri, None)
        self._forget_pause(uri)
        self._publish(uri, [])

    def _tell(self, uri: str) -> None:
        self._publish(uri, diagnostics(self._open[uri]))

    def _forget_pause(self, uri: str) -> None:
        pause = self._pauses.pop(uri, None)
        if pause is not None:
            pause.cancel()

    def _publish(self, uri: str, found: list[types.Diagnostic]) -> None:
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri=uri, diagnostics=found))

    @property
    def _root(self) -> Path:
        return Path(self.workspace.root_path or Path.cwd())

    def _surroundings(self, folder: Path) -> Surroundings:
        if folder not in self._around:
            self._around[folder] = surroundings(folder, self.settings, self._root)
        return self._around[folder]


def _version() -> str:
    try:
        return metadata.version("trace-dsl")
    except metadata.PackageNotFoundError:  # run from its source tree
        return ""


def make_server() -> TraceServer:
    """A server with every feature of this package."""
    server = TraceServer()
    _answer_life_cycle(server)
    _answer_documents(server)
    _answer_questions(server)
    _answer_names(server)
    return server


def serve() -> None:
    """Answer an editor over standard input and output until it says goodbye."""
    make_server().start_io()


# ----------------------------------------------------------------------------------------------- settings and documents


def _answer_life_cycle(server: TraceServer) -> None:
    @server.feature(types.INITIALIZE)
    def _initialize(params: types.InitializeParams) -> None:
        server.settings = read_settings(params.initialization_options)

    @server.feature(types.INITIALIZED)
    def _initialized(params: types.InitializedParams) -> None:
        workspace = server.client_capabilities.workspace
        watching = None if workspace is None else workspace.did_change_watched_files
        if watching is None or not watching.dynamic_registration:
            return
        watchers = [types.FileSystemWatcher(glob_pattern=pattern) for pattern in _WATCHED]
        registration = types.Registration(
            id="trace-dsl-files",
            method=types.WORKSPACE_DID_CHANGE_WATCHED_FILES,
            register_options=types.DidChangeWatchedFilesRegistrationOptions(watchers=watchers),
        )
        server.client_register_capability(types.RegistrationParams(registrations=[registration]))

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    def _configured(params: types.DidChangeConfigurationParams) -> None:
        section = params.settings.get(SECTION) if isinstance(params.settings, dict) else None
        if section is not None:  # an editor that has nothing to say about this server changes nothing
            server.settings = read_settings(section)
            server.read_again()

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def _files_changed(params: types.DidChangeWatchedFilesParams) -> None:
        server.read_again()


def _answer_documents(server: TraceServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def _opened(params: types.DidOpenTextDocumentParams) -> None:
        server.read(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def _changed(params: types.DidChangeTextDocumentParams) -> None:
        server.read(params.text_document.uri, typing=True)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def _saved(params: types.DidSaveTextDocumentParams) -> None:
        server.read_again()

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def _closed(params: types.DidCloseTextDocumentParams) -> None:
        server.close(params.text_document.uri)


# ------------------------------------------------------------------------------------------------------------ questions


def _answer_questions(server: TraceServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def _hover(params: types.HoverParams) -> types.Hover | None:
        document = server.document(params.text_document)
        return None if document is None else hover(document, params.position)

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=list(TRIGGERS)))
    def _completion(params: types.CompletionParams) -> list[types.CompletionItem]:
        document = server.document(params.text_document)
        return [] if document is None else completion(document, params.position)

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def _formatting(params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        document = server.document(params.text_document)
        try:
            return [] if document is None else formatting(document)
        except SpecError as error:
            raise RequestFailed(str(error)) from error

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=list(KINDS)))
    def _actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        document = server.document(params.text_document)
        only = tuple(str(getattr(kind, "value", kind)) for kind in params.context.only or ())
        return [] if document is None else actions(document, params.range, only)

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def _outline(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        document = server.document(params.text_document)
        return [] if document is None else outline(document)

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    def _hints(params: types.InlayHintParams) -> list[types.InlayHint]:
        document = server.document(params.text_document)
        return [] if document is None else hints(document, params.range)


def _answer_names(server: TraceServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def _definition(params: types.DefinitionParams) -> types.Location | None:
        document = server.document(params.text_document)
        return None if document is None else definition(document, params.position)

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def _references(params: types.ReferenceParams) -> list[types.Location]:
        document = server.document(params.text_document)
        if document is None:
            return []
        return references(document, params.position, with_definition=params.context.include_declaration)

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def _prepare_rename(params: types.PrepareRenameParams) -> types.Range | None:
        document = server.document(params.text_document)
        try:
            return None if document is None else renamed_range(document, params.position)
        except SpecError as error:
            raise RequestFailed(str(error)) from error

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    def _rename(params: types.RenameParams) -> types.WorkspaceEdit | None:
        document = server.document(params.text_document)
        try:
            return None if document is None else rename(document, params.position, params.new_name)
        except SpecError as error:
            raise RequestFailed(str(error)) from error
