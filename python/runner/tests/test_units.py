"""What needs no process: the wire's bytes, settings, configuration, and the first shepherd's JSON."""

import json
import logging

import pytest

from shepherd_runner import Config, Options, Runner, SettingsError, cli, keys, wire
from shepherd_runner.errors import ErrorTexts
from shepherd_runner.legacy import BaseRunner, JSONRunner, n_available_gpus, run, to_json_serializable
from shepherd_runner.settings import class_beside, make_runner

# The same bytes as those of the shepherd's own codec.
GOLDEN = [
    (
        wire.ready("upper", 1, 32, 32, False),
        '{"protocol":1,"name":"upper","slots":1,"ahead":32,"batch":32,"message_type":"ReadyMessage"}',
    ),
    (
        wire.ready("upper", 1, 32, 32, True),
        '{"protocol":1,"name":"upper","slots":1,"ahead":32,"batch":32,"logs":true,"message_type":"ReadyMessage"}',
    ),
    (
        wire.log("j", "3-2", "10%\n"),
        '{"job_id":"j","attempt":"3-2","text":"10%\\n","message_type":"LogMessage"}',
    ),
    (
        wire.done("job-1", "1.2"),
        '{"identity":"","job_id":"job-1","attempt":"1.2","message_type":"DoneMessage"}',
    ),
    (
        wire.error("job-1", "1.2", ErrorTexts("bad", "ValueError", "line 1\n")),
        '{"identity":"","job_id":"job-1","attempt":"1.2","message":"bad","exception_type":"ValueError",'
        '"exception_traceback":"line 1\\n","message_type":"ErrorMessage"}',
    ),
    (wire.pong(18446744073709551615), '{"nonce":18446744073709551615,"message_type":"PongMessage"}'),
]


@pytest.mark.parametrize("message, wanted", GOLDEN)
def test_golden_bytes(message, wanted):
    assert message == wanted


def test_inputs_are_read():
    frame = (
        b'{"message":{"identity":"","job_id":"job-1","attempt":"3.1","io_data_root":"/data/dolly","deadline":1.5,'
        b'"message_type":"InputMessage"}}'
    )
    assert wire.decode(frame) == [wire.Input("job-1", "3.1", "/data/dolly", 1.5)]
    frame = (
        b'{"messages":[{"job_id":"job-1","attempt":"3.1","message_type":"CancelMessage"},'
        b'{"grace":0.25,"message_type":"ShutdownMessage"},{"nonce":7,"message_type":"PingMessage"}]}'
    )
    assert wire.decode(frame) == [wire.Cancel("job-1", "3.1"), wire.Shutdown(0.25), wire.Ping(7)]


def test_no_bytes_make_the_decoder_raise():
    frame = (
        b'{"messages":[{"identity":"","job_id":"job-\xc3\xa9","attempt":"3.1","io_data_root":"/d","deadline":1.5,'
        b'"message_type":"InputMessage"},{"nonce":7,"message_type":"PingMessage"}]}'
    )
    for end in range(len(frame)):
        assert all(isinstance(message, wire.Garbage) for message in wire.decode(frame[:end]))
        for flip in (0x01, 0x20, 0x80):
            wire.decode(frame[:end] + bytes([frame[end] ^ flip]) + frame[end + 1 :])


def test_a_frame_holds_so_many_messages_and_no_more():
    message = {"nonce": 1, "message_type": "PingMessage"}
    decoded = wire.decode(json.dumps({"messages": [message] * 1025}).encode())
    assert decoded[:1024] == [wire.Ping(1)] * 1024 and isinstance(decoded[1024], wire.Garbage)


def test_frames_are_no_longer_than_they_may_be():
    long = wire.error("j", "1.1", ErrorTexts("羊" * 100_000, "x" * 1000, "\0" * 1_000_000))
    record = json.loads(long)
    assert len(record["message"].encode()) <= 64 << 10 and record["message"].endswith("…")
    assert len(record["exception_traceback"].encode()) <= 128 << 10
    assert record["exception_traceback"].startswith("…")
    frames = list(wire.frames([long] * 10 + [wire.pong(1)] * 100, 64))
    assert all(len(frame) <= wire.MAX_FRAME for frame in frames)
    messages = [json.loads(frame) for frame in frames]
    assert sum(len(m.get("messages", [m.get("message")])) for m in messages) == 110


def test_the_network_is_not_reached_unless_asked_for():
    def listen(**environ):
        return Options.from_env(9999, environ).listen

    assert listen() == "tcp://127.0.0.1:9999"
    assert listen(SHEPHERD_LISTEN="", SHEPHERD_LISTEN_HOST="") == "tcp://127.0.0.1:9999"
    assert listen(SHEPHERD_LISTEN_HOST="0.0.0.0") == "tcp://0.0.0.0:9999"
    assert listen(SHEPHERD_LISTEN_HOST="::1") == "tcp://[::1]:9999"
    assert listen(SHEPHERD_LISTEN="ipc:///run/a.sock", SHEPHERD_LISTEN_HOST="0.0.0.0") == "ipc:///run/a.sock"


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("runner: {class: a.B}", "a.B"),
        ("runner:\n  class: a.B\n", "a.B"),
        ("# which\nrunner:  # this\n\n  # and\n    class: 'a.B'   # that\n", "a.B"),
        ('runner: { class: "a.B" }  # so\n', "a.B"),
        ('{"runner": {"class": "a.B", "python": "x y"}}', "a.B"),
        ("runner:\n  python: python3\n  class: a.B", "a.B"),
    ],
)
def test_the_class_is_read_without_a_yaml_library(tmp_path, monkeypatch, text, wanted):
    for module in ("yaml", "ruamel", "ruamel.yaml"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / "runner.yaml").write_text(text)
    assert class_beside(tmp_path / "config.yaml") == wanted


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("runner:\n  class: a.B\n  env: {A: 1}\n", "install PyYAML"),
        ("runner: [a]", "install PyYAML"),
        ("runner:\n  command: [a]\n", "install PyYAML"),
        ("runner:\n  command: a\n", "names a command"),
        ("{}", "no section `runner`"),
        ("[]", "not a mapping"),
    ],
)
def test_what_is_not_read_says_why(tmp_path, monkeypatch, text, wanted):
    for module in ("yaml", "ruamel", "ruamel.yaml"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / "runner.yaml").write_text(text)
    with pytest.raises(SettingsError, match=wanted):
        class_beside(tmp_path / "config.yaml")


def test_without_a_file_no_class_is_named(tmp_path):
    assert class_beside(tmp_path / "config.yaml") is None


def test_classes_are_found_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "found_beside.py").write_text(
        "from shepherd_runner import Runner\n"
        "from shepherd_runner.legacy import BaseRunner\n"
        "class A(Runner): pass\n"
        "class B(BaseRunner): pass\n"
        "C = 5\n"
    )
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    config = Config(tmp_path / "config.yaml", "other")
    assert type(make_runner("found_beside.A", config, 1)).__name__ == "A"
    legacy = make_runner("found_beside.B", config, 1)
    assert isinstance(legacy, BaseRunner) and legacy._stream_name == "other"
    for name in ("JSONRunner", "shepherd.runner.JSONRunner", "cxworker.runner.JSONRunner"):
        assert type(make_runner(name, config, 1)) is JSONRunner
    for name, wanted in [
        ("found_beside.C", "no subclass"),
        ("found_beside.D", "no subclass"),
        ("no_such_module.A", "cannot find the module"),
        ("found_beside.deeper.A", "cannot find the module|no subclass"),
        ("Alone", "module.Class"),
        ("a.", "module.Class"),
    ]:
        with pytest.raises(SettingsError, match=wanted):
            make_runner(name, config, 1)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        make_runner("needs_more.A", config, 1)


def test_a_configuration_is_read_when_it_is_looked_into(tmp_path):
    path = tmp_path / "config.yaml"
    config = Config(path)
    with pytest.raises(SettingsError, match="cannot read"):
        config["a"]
    for text, wanted in [("", {}), ("# nothing\n\n", {}), ("null", {}), ('{"a": [1]}', {"a": [1]})]:
        path.write_text(text)
        assert dict(Config(path)) == wanted
    path.write_text("[1]")
    with pytest.raises(SettingsError, match="not a mapping"):
        len(Config(path))
    assert dict(Config()) == {}
    with pytest.raises(SettingsError, match="without a configuration"):
        Config().path


def test_yaml_needs_a_library_and_says_which(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\n")
    for module in ("yaml", "ruamel", "ruamel.yaml"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(SettingsError, match="PyYAML"):
        Config(path)["a"]


def test_wrong_arguments_end_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    (tmp_path / "config.yaml").write_text("")
    for arguments in ([str(tmp_path / "none")], ["-r", "Alone", str(tmp_path / "config.yaml")], ["-p", "x", "y"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
    assert "is not a file" in capsys.readouterr().err


def test_the_names_of_methods_to_override_are_those_of_a_plain_runner():
    with pytest.raises(NotImplementedError, match="neither `process` nor `process_batch`"):
        Runner().process(None)


class Stream:
    def predict_stream(self, payload):
        for number in payload:
            yield {"in": [number]}


class Double:
    def run(self, batch, train, stream):
        assert (train, stream) == (False, None)
        return {"out": [2 * number for number in batch["in"]]}


def test_batches_are_joined_and_postprocessed():
    assert run(Double(), Stream(), "predict", [1, 2]) == {"out": [2, 4]}
    dataset = Stream()
    dataset.postprocess_batch = lambda input_batch, output_batch: {**input_batch, **output_batch}
    assert run(Double(), dataset, "predict", [1, 2]) == {"in": [1, 2], "out": [2, 4]}
    with pytest.raises(AttributeError, match="no method `other_stream`"):
        run(Double(), dataset, "other", [])


def test_data_becomes_json():
    data = {"a": [1, (2.5, None), {"b": True}], "c": "text"}
    assert to_json_serializable(data) == {"a": [1, [2.5, None], {"b": True}], "c": "text"}
    with pytest.raises(ValueError, match="no form in JSON: set"):
        to_json_serializable([{1}])


def test_arrays_become_json():
    numpy = pytest.importorskip("numpy")
    data = {
        "array": numpy.arange(4).reshape(2, 2),
        "scalar": numpy.float32(0.5),
        "truth": numpy.bool_(True),
        "text": numpy.str_("t"),
        "objects": numpy.array([{"a": numpy.int64(1)}, None], dtype=object),
        numpy.int64(5): [numpy.int64(6)],
    }
    wanted = {
        "array": [[0, 1], [2, 3]],
        "scalar": 0.5,
        "truth": True,
        "text": "t",
        "objects": [{"a": 1}, None],
        5: [6],
    }
    serializable = to_json_serializable(data)
    assert serializable == wanted
    json.dumps(serializable)


@pytest.mark.parametrize(
    "environ, wanted",
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,2", "NVIDIA_VISIBLE_DEVICES": "all"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, 1),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2,GPU-3"}, 3),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, 0),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, 0),
    ],
)
def test_gpus_are_counted(monkeypatch, environ, wanted):
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert n_available_gpus() == wanted


def test_inputs_are_found_by_their_keys(tmp_path):
    long = "/" + "ž" * 200
    names = {
        "input": "input",
        "deep/er/two": "deep/er/two",
        "/x": ".shepherd-keys/=%2Fx",
        "d/": ".shepherd-keys/=d%2F",
        "a b//%": ".shepherd-keys/=a%20b%2F%2F%25",
        ".shepherd-keys/=x": ".shepherd-keys/=.shepherd-keys%2F%3Dx",
        "a/.shepherd-keys/=b": "a/.shepherd-keys/=b",
        # Cut into names of at most 126 bytes.
        long: ".shepherd-keys/" + "/".join(_chunks("%2F" + "%C5%BE" * 200)),
        # Not ours.
        ".shepherd-keys/else": ".shepherd-keys/else",
    }
    for name in names.values():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("input")
    found = keys.files(tmp_path)
    assert found == {key: tmp_path / name for key, name in names.items()}
    assert found["/x"].read_text() == ".shepherd-keys/=%2Fx"
    with pytest.raises(FileNotFoundError):
        keys.files(tmp_path / "none")


def _chunks(text):
    parts = [text[at : at + 126] for at in range(0, len(text), 126)]
    return ["+" + part for part in parts[:-1]] + ["=" + parts[-1]]
