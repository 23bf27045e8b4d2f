"""Servers of the lessons: they answer, tell why they do not, and leave nothing behind."""

import gc
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import psutil
import pytest
import requests
from jupyter_client.manager import start_new_kernel
from onnx import TensorProto, helper, numpy_helper

from utils import extras, serving
from utils.serving import process, tf_serving

HTTP = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
# A server whose child leaves its session and ignores SIGTERM, as TorchServe's and Ray's do.
STRAY = """
    import http.server, os, signal, sys
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        os._exit(0)
    os.wait()
    http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
ECHO = """
    import http.server, sys
    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.answer(200, b"{}")
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(400 if body == b"3" else 200, body)
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), "{port}"]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def nothing_left(processes: list[psutil.Process], port: int, seconds: float = 10) -> bool:
    gone, alive = psutil.wait_procs(processes, seconds)
    with socket.socket() as probe:
        return not alive and probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_answers_and_is_gone_after_its_block():
    with serving.start(HTTP, ready="/") as server:
        assert requests.get(server.url, timeout=5).status_code == 200
        processes = family(server._guard.pid)
        assert server.alive and server.pid in {process.pid for process in processes}
    assert nothing_left(processes, server.port)


def test_what_a_server_started_ends_with_it():
    server = serving.start(python(STRAY), ready="/", grace=1)
    deadline = time.monotonic() + 5
    while len(processes := family(server._guard.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes) == 3, "the guard, the server and its stray child"
    server.stop()
    assert nothing_left(processes, server.port)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_killed_kernel_leaves_no_server(name):
    code = f"""
        import time
        from utils import serving
        server = serving.start({python(STRAY)!r}, ready="/")
        print(server._guard.pid, server.port, flush=True)
        time.sleep(60)
    """
    kernel = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    guard, port = map(int, kernel.stdout.readline().split())
    processes = family(guard)
    os.kill(kernel.pid, getattr(signal, name))
    kernel.wait()
    assert nothing_left(processes, port)


def test_a_restarted_kernel_leaves_no_server():
    code = f"""
        from utils import serving
        server = serving.start({python(STRAY)!r}, ready="/")
        print(server._guard.pid, server.port)
    """
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        printed = []
        client.execute_interactive(
            textwrap.dedent(code),
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
            timeout=60,
        )
        guard, port = map(int, "".join(printed).split())
        processes = family(guard)
        manager.restart_kernel(now=True)
        assert nothing_left(processes, port)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_server_that_nothing_refers_to_ends():
    gc.disable()  # it ends at once, not when the garbage collector next runs
    try:
        server = serving.start(HTTP, ready="/")
        processes, port = family(server._guard.pid), server.port
        del server
        assert nothing_left(processes, port)
    finally:
        gc.enable()


def test_a_server_that_ends_says_why():
    code = "print('the model is missing', flush=True); raise SystemExit(3)"
    with pytest.raises(serving.ServerError, match="ended with 3") as caught:
        serving.start(python(code))
    assert str(caught.value).endswith("\nthe model is missing")


def test_a_server_that_never_answers_is_ended():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(serving.ServerError, match="No answer from .*/health in 15 s") as caught:
        serving.start(python(code), seconds=15)  # time for two starts of Python
    assert not psutil.pid_exists(int(str(caught.value).splitlines()[-1]))


def test_a_port_that_was_taken_meanwhile_is_changed_for_another(monkeypatch):
    ports = [serving.free_port() for _ in range(2)]
    monkeypatch.setattr(process, "free_port", iter(ports).__next__)
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[0]))
        with serving.start(HTTP, ready="/") as server:
            assert server.port == ports[1]
            assert requests.get(server.url, timeout=5).status_code == 200


def test_a_port_that_stays_taken_is_an_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        command = [str(other.getsockname()[1]) if part == "{port}" else part for part in HTTP]
        with pytest.raises(serving.ServerError, match="Address already in use"):
            serving.start(command, ready="/")


def test_the_log_is_read_while_the_server_writes_and_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving.start(HTTP, ready="/", env={"PYTHONUNBUFFERED": "1"}) as server:
        for name in ("one", "two"):
            requests.get(f"{server.url}/{name}", timeout=5)
            assert f"GET /{name}" in server.text
        assert server.text.index("GET /one") < server.text.index("GET /two")
        assert list(tmp_path.iterdir()) == []


def test_load_counts_what_was_answered_and_what_was_not():
    with serving.start(python(ECHO), ready="/") as server:
        seen = serving.load(server.url, [1, 2, 3, 4], clients=3, requests=40)
    assert seen.statuses == {200: 30, 400: 10}
    assert seen.failed == 10 and len(seen.latencies) == 30
    assert all(answer == [1, 2, 3, 4][i % 4] for i, answer in seen.answers.items())
    assert 0 < seen.percentile(50) <= seen.percentile(99) and seen.throughput > 0


def test_load_on_a_dead_server_is_an_error_and_no_exception():
    seen = serving.load(f"http://127.0.0.1:{serving.free_port()}", [1], clients=2, requests=6)
    assert seen.statuses == {"ConnectionRefusedError": 6} and seen.failed == 6


def test_missing_packages_are_named_with_the_command_that_helps():
    extras.need("json")
    with pytest.raises(ModuleNotFoundError, match="needs no_such_package.*make deploy"):
        extras.need("json", "no_such_package")


def write_version(folder, params):
    """Write an ONNX file of one product and one sum into a new version folder, as a whole."""
    W, b = (numpy_helper.from_array(a, name) for a, name in zip(params, "Wb", strict=True))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", 3), ("y", 2))
    ]
    node = helper.make_node("Gemm", ["x", "W", "b"], ["y"])
    graph = helper.make_graph([node], "line", ends[:1], ends[1:], [W, b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    coming = folder.parents[1] / "coming"
    coming.mkdir()
    onnx.save(model, coming / "model.onnx")
    folder.parent.mkdir(exist_ok=True)
    coming.rename(folder)


def config(folder, policy="", labels=""):
    base = f'name: "line" base_path: "{folder / "line"}" model_platform: "tensorflow"'
    return f"model_config_list {{ config {{ {base} {policy} {labels} }} }}"


@pytest.fixture
def line(tmp_path):
    """A running stand-in with one version of y = x W + 1, and the port of its gRPC."""
    write_version(tmp_path / "line" / "1", (np.ones((3, 2), np.float32), np.ones(2, np.float32)))
    (tmp_path / "models.config").write_text(config(tmp_path))
    port = serving.free_port()
    with serving.start(tf_serving.command(tmp_path, port), ready="/v1/models/line") as server:
        yield server, port, tmp_path


def states(server):
    answer = requests.get(f"{server.url}/v1/models/line", timeout=5).json()
    return {s["version"]: s["state"] for s in answer["model_version_status"]}


def wait_for(found, seconds=30):
    end = time.monotonic() + seconds
    while not found() and time.monotonic() < end:
        time.sleep(0.1)
    assert found()


def test_the_stand_in_speaks_tensorflow_servings_rest(line):
    server, _, _ = line
    url = f"{server.url}/v1/models/line"

    def ask(path, body):
        answer = requests.post(url + path, data=body, timeout=5)
        return answer.status_code, answer.json()

    assert ask(":predict", '{"instances": [[1, 2, 3]]}') == (200, {"predictions": [[7, 7]]})
    assert ask(":predict", '{"inputs": {"x": [[1, 2, 3]]}}') == (200, {"outputs": [[7, 7]]})
    assert ask(":predict", '{"instances": [{"x": [1, 2, 3]}]}')[0] == 200
    assert ask("/versions/1:predict", '{"instances": [[0, 0, 0]]}')[0] == 200
    refused = {
        "{": 400,
        "[]": 400,
        '{"instances": []}': 400,
        '{"instances": [[1, 2]]}': 400,
        '{"instances": [["a", 1, 2]]}': 400,
        '{"inputs": {"z": [[1, 2, 3]]}}': 400,
    }
    for body, status in refused.items():
        code, answer = ask(":predict", body)
        assert code == status and answer["error"], body
    for path in ("/versions/9:predict", "/labels/stable:predict", "x:predict", ":classify"):
        assert ask(path, '{"instances": [[1, 2, 3]]}')[0] == 404
    metrics = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=5).text
    assert 'request_count{model_name="line",status="OK"} 4' in metrics
    assert 'request_count{model_name="line",status="INVALID_ARGUMENT"} 4' in metrics


def test_a_new_version_comes_while_the_old_one_serves(line):
    server, _, folder = line
    url = f"{server.url}/v1/models/line:predict"
    with ThreadPoolExecutor() as pool:
        load = pool.submit(
            serving.load, url, [{"instances": [[1, 2, 3]]}], clients=2, requests=3000
        )
        params = np.ones((3, 2), np.float32), np.full(2, 10, np.float32)
        write_version(folder / "line" / "2", params)
        wait_for(lambda: states(server) == {"2": "AVAILABLE", "1": "END"})
        later = requests.post(url, json={"instances": [[1, 2, 3]]}, timeout=5).json()
        seen = load.result()
    assert later == {"predictions": [[16, 16]]}
    assert seen.failed == 0
    assert {answer["predictions"][0][0] for answer in seen.answers.values()} <= {7.0, 16.0}


def test_policy_and_labels_come_with_a_new_models_config(line):
    server, _, folder = line
    write_version(folder / "line" / "2", (np.ones((3, 2), np.float32), np.zeros(2, np.float32)))
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "new" value: 2 }'
    (folder / "new").write_text(config(folder, "model_version_policy { all {} }", labels))
    (folder / "new").replace(folder / "models.config")  # at once: nobody reads half of it
    wait_for(lambda: states(server) == {"2": "AVAILABLE", "1": "AVAILABLE"})
    for label, value in (("stable", 7), ("new", 6)):
        url = f"{server.url}/v1/models/line/labels/{label}:predict"
        answer = requests.post(url, json={"instances": [[1, 2, 3]]}, timeout=5)
        assert answer.json() == {"predictions": [[value, value]]}


def test_a_broken_version_leaves_the_old_one_in_place(line):
    server, _, folder = line
    (folder / "broken").mkdir()
    (folder / "broken" / "model.onnx").write_text("no model")
    (folder / "broken").rename(folder / "line" / "2")
    wait_for(lambda: "2" in states(server))
    assert states(server) == {"2": "END", "1": "AVAILABLE"}


def test_the_stand_in_speaks_tensorflow_servings_grpc(line):
    code = """
        import sys
        import grpc
        import numpy as np
        from utils.serving import tf_serving
        with tf_serving.protos_only():
            from tensorflow_serving.apis import get_model_status_pb2 as status
            from tensorflow_serving.apis import model_management_pb2 as management
            from tensorflow_serving.apis import model_service_pb2_grpc as models
            from tensorflow_serving.apis import predict_pb2 as predict
            from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction
        assert "tensorflow" not in sys.modules
        channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
        stub, x = prediction.PredictionServiceStub(channel), np.array([[1, 2, 3]], np.float32)

        def ask(name, shape=(1, 3), version=None):
            request = predict.PredictRequest()
            request.model_spec.name = name
            if version:
                request.model_spec.version.value = version
            tensor = request.inputs["x"]
            tensor.dtype, tensor.tensor_content = 1, x.tobytes()
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
            try:
                return stub.Predict(request, timeout=10)
            except grpc.RpcError as error:
                return error.code().name

        answer = ask("line")
        assert answer.model_spec.version.value == 1
        y = np.frombuffer(answer.outputs["y"].tensor_content, np.float32)
        assert y.tolist() == [7, 7], y
        assert ask("line", version=1).model_spec.version.value == 1
        assert ask("shoes") == "NOT_FOUND" and ask("line", version=9) == "NOT_FOUND"
        assert ask("line", (3, 1)) == "INVALID_ARGUMENT" and ask("line", (7,)) == "INVALID_ARGUMENT"
        manager, request = models.ModelServiceStub(channel), status.GetModelStatusRequest()
        request.model_spec.name = "line"
        answer = manager.GetModelStatus(request, timeout=10).model_version_status
        assert [(s.version, s.state) for s in answer] == [(1, 30)]
        manager.HandleReloadConfigRequest(management.ReloadConfigRequest(), timeout=10)
        assert ask("line") == "NOT_FOUND"  # the new configuration has no models
    """
    _, port, _ = line
    command = [sys.executable, "-c", textwrap.dedent(code), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def answered(server):
    """Return how many predictions the stand-in has counted."""
    text = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=5).text
    return sum(int(line.split()[-1]) for line in text.splitlines() if 'status="OK"' in line)


def test_a_stopped_stand_in_loses_no_request_but_one_on_each_kept_connection(line):
    server, port, _ = line
    processes = family(server._guard.pid)
    url, body = f"{server.url}/v1/models/line:predict", {"instances": [[1, 2, 3]]}
    with ThreadPoolExecutor() as pool:
        load = pool.submit(serving.load, url, [body], clients=4, requests=20_000)
        wait_for(lambda: answered(server) > 100)
        assert server.stop() == 0
        seen = load.result()
    assert seen.statuses[200] > 100 and seen.statuses["ConnectionRefusedError"]
    # Whoever sends on a kept connection at the moment when it is closed, has to send again.
    assert seen.failed - seen.statuses["ConnectionRefusedError"] <= 4
    assert {status for status in seen.statuses if isinstance(status, int)} == {200}
    assert nothing_left(processes, server.port) and nothing_left([], port)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_answer_that_is_on_its_way_arrives_whole_before_a_stopped_stand_in_ends(line):
    """The answer is larger than what the system takes in advance, and is read after the stop."""
    server, _, _ = line
    rows = 300_000
    body = json.dumps({"instances": [[0.1, 0, 0]] * rows}).encode()
    head = f"POST /v1/models/line:predict HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as client, ThreadPoolExecutor(1) as pool:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head.encode() + body)
        assert select.select([client], [], [], 60)[0], "the answer begins"
        stopping = pool.submit(server.stop)
        wait_for(lambda: not listens(server.port))
        answer = http.client.HTTPResponse(client, method="POST")
        answer.begin()
        predictions = json.loads(answer.read())["predictions"]
        assert stopping.result() == 0
    assert answer.status == 200 and int(answer.headers["Content-Length"]) > 10**7
    assert len(predictions) == rows and np.allclose(predictions, 1.1)


@pytest.fixture
def both_engines(monkeypatch):
    """A machine that has the program, and a Docker engine with the image."""
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(tf_serving, "_docker_has", lambda image: True)
    monkeypatch.delenv(tf_serving.ALL_ADDRESSES, raising=False)


def test_the_real_engine_is_taken_where_it_is(tmp_path, both_engines):
    command = tf_serving.command(tmp_path, 8500)
    assert command[:2] == ["docker", "run"] and "127.0.0.1:8500:8500" in command
    (tmp_path / "model.onnx").touch()
    assert tf_serving.engine(tmp_path) == tf_serving.describe(tmp_path) == "stand-in"


def test_the_program_that_listens_everywhere_is_asked_for(tmp_path, both_engines, monkeypatch):
    monkeypatch.setattr(tf_serving, "_docker_has", lambda image: False)
    assert tf_serving.engine(tmp_path) == "stand-in"
    assert f"{tf_serving.ALL_ADDRESSES}=1" in tf_serving.describe(tmp_path)
    monkeypatch.setenv(tf_serving.ALL_ADDRESSES, "1")
    assert tf_serving.command(tmp_path, 8500)[0] == tf_serving.BINARY
    assert "listens on all addresses" in tf_serving.describe(tmp_path)


def test_the_port_is_put_into_the_environment_too():
    code = """
        import http.server, os
        port = int(os.environ["P"])
        http.server.test(http.server.SimpleHTTPRequestHandler, port=port, bind="127.0.0.1")
    """
    with serving.start(python(code), ready="/", env={"P": "{port}"}) as server:
        assert requests.get(server.url, timeout=5).status_code == 200
