"""A stand-in for TensorFlow Serving: its model folders, models.config, REST paths and gRPC.

    python tf_server.py --model_config_file=models.config --port=8500 --rest_api_port=8501

It is for learning and tests where the real server is not to be had. Written from the public API:
version folders with hot loading (the new version is loaded before the old one goes), version
policies, labels, Predict, GetModelStatus, HandleReloadConfigRequest, and Prometheus metrics. There
is no batching, and a version is a SavedModel, or a `model.onnx`, which the real server cannot read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import text_format

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.serving.tf_serving import protos_only

with protos_only():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import (
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
    from tensorflow_serving.apis.model_management_pb2 import ReloadConfigResponse
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

HOST = "127.0.0.1"
LOOK_SECONDS = 0.05
SIGNATURE = "serving_default"
METRICS = "/monitoring/prometheus/metrics"
PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
)
CODES = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "INTERNAL": 500, "UNAVAILABLE": 503}
FINISH_SECONDS = 4  # for what is under way: less than whoever stops a server waits by default
DTYPES = {
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_BOOL: np.bool_,
}
NUMBERS = {np.dtype(dtype): number for number, dtype in DTYPES.items()}
Arrays = dict[str, np.ndarray]


class ServingError(Exception):
    """An error with the name of its canonical gRPC code, of which REST makes an HTTP status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Servable:
    """One loaded version: how it is called, and name -> (dtype, shape) of what goes in."""

    call: Callable[[Arrays], Arrays]
    inputs: Mapping[str, tuple[np.dtype, tuple[int | None, ...]]]

    def predict(self, given: Mapping[str, object]) -> Arrays:
        """Return the outputs; refuse other inputs than those of the signature."""
        if given.keys() != self.inputs.keys():
            said = f"inputs {sorted(given)}, but the signature has {sorted(self.inputs)}"
            raise ServingError("INVALID_ARGUMENT", f"The request has {said}.")
        return self.call({name: self._checked(name, value) for name, value in given.items()})

    def _checked(self, name: str, value: object) -> np.ndarray:
        dtype, shape = self.inputs[name]
        try:
            array = np.asarray(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ServingError("INVALID_ARGUMENT", f"{name}: not a tensor: {error}") from None
        pairs = zip(array.shape, shape, strict=False)
        if array.ndim != len(shape) or any(b is not None and a != b for a, b in pairs):
            said = f"{name}: got shape {array.shape}, expected {shape}"
            raise ServingError("INVALID_ARGUMENT", said)
        return array


def load_version(folder: Path) -> Servable:
    """Load a SavedModel's default signature, or `model.onnx`."""
    return load_onnx(folder / "model.onnx") if _is_onnx(folder) else load_saved_model(folder)


def load_onnx(path: Path) -> Servable:
    """Return an ONNX file's graph, run by ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    inputs = {
        each.name: (
            np.dtype(kinds[each.type]),
            tuple(size if isinstance(size, int) else None for size in each.shape),
        )
        for each in session.get_inputs()
    }
    return Servable(lambda arrays: dict(zip(names, session.run(None, arrays), strict=True)), inputs)


def load_saved_model(folder: Path) -> Servable:
    """Return a SavedModel's signature `serving_default`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures[SIGNATURE]
    _, named = function.structured_input_signature
    inputs = {n: (np.dtype(s.dtype.as_numpy_dtype), tuple(s.shape)) for n, s in named.items()}

    def call(arrays: Arrays, keep: object = loaded) -> Arrays:  # without `keep` its variables die
        given = {name: tf.constant(array) for name, array in arrays.items()}
        return {name: tensor.numpy() for name, tensor in function(**given).items()}

    return Servable(call, inputs)


def _is_onnx(folder: Path) -> bool:
    return (folder / "model.onnx").is_file()


def _is_complete(folder: Path) -> bool:
    return folder.name.isdecimal() and (_is_onnx(folder) or (folder / "saved_model.pb").is_file())


@dataclass
class Model:
    """A name of models.config: its folder, which versions it wants, its labels, what is loaded."""

    config: object
    live: dict[int, Servable] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)

    def wanted(self) -> list[int]:
        """Return the versions that the policy asks for, of those on disk."""
        folder = Path(self.config.base_path)
        there = sorted(int(f.name) for f in folder.iterdir() if _is_complete(f))
        policy = self.config.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "all":
            return there
        if kind == "specific":
            return [version for version in policy.specific.versions if version in there]
        return there[-(policy.latest.num_versions or 1) :]

    def refresh(self) -> None:
        """Load what is wanted and not there yet; after that, let the others go."""
        wanted, live = self.wanted(), dict(self.live)
        for version in wanted:
            if version not in live and version not in self.failed:
                try:
                    live[version] = load_version(Path(self.config.base_path) / str(version))
                    self.ended.discard(version)
                except Exception as error:  # a broken version must not end the others
                    self.failed[version] = f"{type(error).__name__}: {error}"
        if any(version in live for version in wanted):
            self.ended |= live.keys() - set(wanted)
            live = {version: live[version] for version in wanted if version in live}
        self.live = live  # one assignment: a request sees the old set or the new one

    def pick(self, version: int | None, label: str | None) -> tuple[int, Servable]:
        """Return the version that a request asks for: by number, by label, or the newest."""
        live, name = self.live, self.config.name
        if label is not None:
            if label not in self.config.version_labels:
                raise ServingError("NOT_FOUND", f"Model {name} has no version label {label}.")
            version = self.config.version_labels[label]
        if version is None and live:
            version = max(live)
        if version not in live:
            raise ServingError("NOT_FOUND", f"Servable not found for request: {name}, {version}")
        return version, live[version]

    def states(self) -> list[tuple[int, str, str, str]]:
        """Return (version, state, error code, error message), the newest first."""
        found = [(v, "AVAILABLE", "OK", "") for v in self.live]
        found += [(v, "END", "OK", "") for v in self.ended - self.live.keys()]
        found += [(v, "END", "UNKNOWN", why) for v, why in self.failed.items()]
        return sorted(found, reverse=True)


class Core:
    """All models, and what REST and gRPC ask of them.

    running     REST requests under way; gRPC keeps count of its own
    stopping    whether a kept connection must end with its next answer
    """

    def __init__(self, config: ModelServerConfig) -> None:
        self.models: dict[str, Model] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.running, self.stopping = 0, False
        self.lock = threading.Condition()
        self.configure(config)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count the block as one request under way."""
        with self.lock:
            self.running += 1
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1
                self.lock.notify_all()

    def wait_for_the_last(self, seconds: float) -> bool:
        """Return whether all requests were answered within the seconds."""
        with self.lock:
            return self.lock.wait_for(lambda: not self.running, seconds)

    def configure(self, config: ModelServerConfig) -> None:
        """Take a new list of models; what stays keeps its loaded versions."""
        models = {}
        for each in config.model_config_list.config:
            old = self.models.get(each.name)
            same = old and old.config.base_path == each.base_path
            models[each.name] = Model(each, old.live, old.ended) if same else Model(each)
        for model in models.values():
            model.refresh()
        self.models = models

    def watch(self, seconds: float, path: Path | None, config_seconds: float) -> None:
        """Look for new versions, and for a new models.config, for ever."""
        text, next_config = path.read_text(), time.monotonic() + config_seconds
        while True:
            time.sleep(seconds)
            if config_seconds and time.monotonic() >= next_config:
                next_config = time.monotonic() + config_seconds
                if (now := path.read_text()) != text:
                    text = now
                    self.reread(now)
            for model in list(self.models.values()):
                try:
                    model.refresh()
                except OSError as error:
                    print(f"{model.config.name}: {error}", file=sys.stderr, flush=True)

    def reread(self, text: str) -> None:
        """Take the text of a models.config, unless it is none."""
        try:
            self.configure(text_format.Parse(text, ModelServerConfig()))
        except (text_format.ParseError, OSError) as error:
            print(f"models.config: {error}", file=sys.stderr, flush=True)

    def model(self, name: str) -> Model:
        if name not in self.models:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {name}")
        return self.models[name]

    def predict(
        self, name: str, version: int | None, label: str | None, given: Callable[..., Arrays]
    ) -> tuple[int, Arrays]:
        """Return the version that answered and its outputs; `given` makes inputs of its names."""
        status = "INTERNAL"
        try:
            version, servable = self.model(name).pick(version, label)
            outputs = servable.predict(given(servable))
            status = "OK"
            return version, outputs
        except ServingError as error:
            status = error.code
            raise
        finally:
            with self.lock:
                self.counts[name if name in self.models else "unknown", status] += 1

    def metrics(self) -> str:
        """Return the counts in Prometheus' text format, under TensorFlow Serving's name."""
        metric = ":tensorflow:serving:request_count"
        with self.lock:
            counts = sorted(self.counts.items())
        lines = [f'{metric}{{model_name="{m}",status="{s}"}} {n}' for (m, s), n in counts]
        return "\n".join([f"# TYPE {metric} counter", *lines, ""])


class Handler(BaseHTTPRequestHandler):
    """The REST API: /v1/models/NAME[/versions/N | /labels/L][:predict]."""

    core: Core
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """Answer the next request of a kept connection; it counts from its first byte on."""
        if not self.rfile.peek(1):  # waits for that byte; there is none where the client has gone
            self.close_connection = True
            return
        with self.core.under_way():
            super().handle_one_request()

    def do_GET(self) -> None:
        if self.path == METRICS:
            self._send(200, self.core.metrics().encode(), "text/plain; version=0.0.4")
            return
        self._answer(self._status)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(lambda: self._predict(body))

    def _answer(self, ask: Callable[[], object]) -> None:
        try:
            status, value = 200, ask()
        except ServingError as error:
            status, value = CODES[error.code], {"error": str(error)}
        except Exception as error:  # the connection lives on
            status, value = 500, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, json.dumps(value).encode(), "application/json")

    def _status(self) -> object:
        match = PATH.fullmatch(self.path)
        if not match:
            raise ServingError("NOT_FOUND", f"Malformed request: GET {self.path}")
        states = self.core.model(match["name"]).states()
        if match["version"]:
            states = [state for state in states if state[0] == int(match["version"])]
        return {
            "model_version_status": [
                {
                    "version": str(version),
                    "state": state,
                    "status": {"error_code": code, "error_message": message},
                }
                for version, state, code, message in states
            ]
        }

    def _predict(self, body: bytes) -> object:
        match = PATH.fullmatch(self.path.removesuffix(":predict"))
        if not match or not self.path.endswith(":predict"):
            raise ServingError("NOT_FOUND", f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
        rows = isinstance(request, dict) and "instances" in request
        if not rows and not (isinstance(request, dict) and "inputs" in request):
            raise ServingError("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
        version = int(match["version"]) if match["version"] else None
        given = request["instances"] if rows else request["inputs"]

        def inputs(servable: Servable) -> dict[str, object]:
            if rows and given and isinstance(given, list) and isinstance(given[0], dict):
                return {name: [row[name] for row in given] for name in given[0]}
            return given if isinstance(given, dict) else {next(iter(servable.inputs)): given}

        _, outputs = self.core.predict(match["name"], version, match["label"], inputs)
        if not rows:
            plain = {name: array.tolist() for name, array in outputs.items()}
            return {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
        if len(outputs) == 1:
            return {"predictions": next(iter(outputs.values())).tolist()}
        pairs = zip(*(array.tolist() for array in outputs.values()), strict=True)
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in pairs]}

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.core.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC service that clients know as PredictionServiceStub; Predict only."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def Predict(self, request, context):
        spec = request.model_spec
        kind = spec.WhichOneof("version_choice")
        version = spec.version.value if kind == "version" else None
        label = spec.version_label if kind == "version_label" else None
        with _grpc_errors(context):
            arrays = {name: to_array(proto) for name, proto in request.inputs.items()}
            version, outputs = self.core.predict(spec.name, version, label, lambda _: arrays)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = SIGNATURE
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(to_proto(array))
        return response


class Management(model_service_pb2_grpc.ModelServiceServicer):
    """The gRPC service that tells a model's state and takes a new models.config."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        with _grpc_errors(context):
            states = self.core.model(request.model_spec.name).states()
        for version, state, _, message in states:
            added = response.model_version_status.add(version=version)
            added.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
            added.status.error_message = message
        return response

    def HandleReloadConfigRequest(self, request, context):
        with _grpc_errors(context):
            self.core.configure(request.config)
        return ReloadConfigResponse()


@contextmanager
def _grpc_errors(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn a ServingError in the block into the status of a gRPC call."""
    try:
        yield
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], str(error))


def to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Return a TensorProto's numbers, from its bytes or from its list of values."""
    if proto.dtype not in DTYPES:
        name = types_pb2.DataType.Name(proto.dtype)
        raise ServingError("INVALID_ARGUMENT", f"The stand-in knows no {name}.")
    dtype, shape = DTYPES[proto.dtype], [dim.size for dim in proto.tensor_shape.dim]
    values = next((v for f, v in proto.ListFields() if f.name.endswith("_val")), [])
    try:
        if proto.tensor_content:
            return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
        flat = np.array(values, dtype)
        return np.full(shape, flat[0]) if flat.size == 1 else flat.reshape(shape)
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", str(error)) from None


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Return an array as a TensorProto with its bytes."""
    proto = tensor_pb2.TensorProto(dtype=NUMBERS[array.dtype], tensor_content=array.tobytes())
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def options() -> argparse.Namespace:
    """Return the flags, which have the names that the real server gives them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_config_file", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True, help="of gRPC")
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1)
    parser.add_argument("--model_config_file_poll_wait_seconds", type=float, default=0)
    parser.add_argument("--allow_version_labels_for_unavailable_models")  # this one always does
    return parser.parse_args()


def finish(core: Core, rest: ThreadingHTTPServer, rpc: grpc.Server) -> bool:
    """Take nothing new; return whether all that had begun was answered."""
    core.stopping = True
    ended = rpc.stop(grace=FINISH_SECONDS)
    rest.shutdown()
    rest.server_close()
    answered = core.wait_for_the_last(FINISH_SECONDS)
    return ended.wait(FINISH_SECONDS) and answered


def main() -> None:
    """Serve until SIGTERM; then finish the requests in flight."""
    flags, stop = options(), threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    path = flags.model_config_file
    core = Core(text_format.Parse(path.read_text(), ModelServerConfig()))
    polls = flags.file_system_poll_wait_seconds, path, flags.model_config_file_poll_wait_seconds
    threading.Thread(target=core.watch, args=polls, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(core), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Management(core), server)
    server.add_insecure_port(f"{HOST}:{flags.port}")
    server.start()
    Handler.core = core
    rest = ThreadingHTTPServer((HOST, flags.rest_api_port), Handler)
    rest.daemon_threads = True
    threading.Thread(target=rest.serve_forever, args=(LOOK_SECONDS,), daemon=True).start()
    while not stop.wait(LOOK_SECONDS):  # the system may give the signal to another thread, and
        pass  # only this one sees what was heard, when it wakes
    # At once: threads of gRPC and of a runtime may be in the way of an orderly end.
    os._exit(0 if finish(core, rest, server) else 1)


if __name__ == "__main__":
    main()
