import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunRequest(_message.Message):
    __slots__ = ("handler", "run", "attempt", "fence", "job", "fire_time", "params_json", "timeout", "retry_max", "part", "callback")
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    FIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PARAMS_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRY_MAX_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_FIELD_NUMBER: _ClassVar[int]
    handler: str
    run: str
    attempt: int
    fence: int
    job: str
    fire_time: _timestamp_pb2.Timestamp
    params_json: str
    timeout: _duration_pb2.Duration
    retry_max: int
    part: Part
    callback: Callback
    def __init__(self, handler: _Optional[str] = ..., run: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., job: _Optional[str] = ..., fire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., params_json: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retry_max: _Optional[int] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., callback: _Optional[_Union[Callback, _Mapping]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("index", "total")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    index: int
    total: int
    def __init__(self, index: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Callback(_message.Message):
    __slots__ = ("url", "token", "deadline", "heartbeat")
    URL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    url: str
    token: str
    deadline: _timestamp_pb2.Timestamp
    heartbeat: _duration_pb2.Duration
    def __init__(self, url: _Optional[str] = ..., token: _Optional[str] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., heartbeat: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("done", "accepted", "failed")
    DONE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    done: Done
    accepted: Accepted
    failed: Failed
    def __init__(self, done: _Optional[_Union[Done, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("result_json",)
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    result_json: str
    def __init__(self, result_json: _Optional[str] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failed(_message.Message):
    __slots__ = ("reason", "code", "final")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    code: int
    final: bool
    def __init__(self, reason: _Optional[str] = ..., code: _Optional[int] = ..., final: _Optional[bool] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("run", "attempt", "fence", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    attempt: int
    fence: int
    reason: str
    def __init__(self, run: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
