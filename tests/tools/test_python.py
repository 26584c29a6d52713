"""The python tool's contract: program and input to result, mistakes to clear errors."""

from __future__ import annotations

import base64
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.tools import Context
from tests.tools.conftest import Known
from tests.waits import until

NESTED = """
import math
factor = 2

def inner(x):
    return outer(x) * factor + math.floor(0.5)

def outer(x):
    return x + offset

offset = 10
result = inner(a)
"""

RETURNS = """
\"\"\"A docstring.\"\"\"
from __future__ import annotations
import os.path as path

total: int = 0
for n in numbers:
    if n < 0:
        return {"negative": n, "seen": total, "path": path.sep}
    total += n

def seen():
    return total

return seen()
"""


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        pytest.param("result = a + 1", {"a": 1}, 2, id="the global result"),
        pytest.param("def main(a): return a + 1", {"a": 1}, 2, id="main by parameter name"),
        pytest.param("async def main(a): return a + 1", {"a": 1}, 2, id="an async main"),
        pytest.param("def main(**all): return all", {"a": 1, "b": 2}, {"a": 1, "b": 2}, id="**all"),
        pytest.param("def main(a, b=5): return [a, b]", {"a": 1}, [1, 5], id="main's defaults"),
        pytest.param("def main(a, /): return a", {"a": 1}, 1, id="positional-only parameters"),
        pytest.param("def main(): return None", {}, None, id="a main that returns None"),
        pytest.param("if a: return 'yes'\nreturn 'no'", {"a": 1}, "yes", id="a top-level return"),
        pytest.param(RETURNS, {"numbers": [1, 2]}, 3, id="return keeps names global"),
        pytest.param(
            RETURNS,
            {"numbers": [4, -1]},
            {"negative": -1, "seen": 4, "path": "/"},
            id="return inside a loop",
        ),
        pytest.param(
            "if a: return 1\nresult = 2", {"a": 0}, 2, id="result where no return was reached"
        ),
        pytest.param("return 1\nresult = 2", {}, 1, id="return before result"),
        pytest.param("result = 1\ndef main(): return 2", {}, 1, id="result before main"),
        pytest.param("result = None\ndef main(): return 2", {}, 2, id="None is no result"),
        pytest.param("def main(): return 2", {"result": 1}, 2, id="an input is no result"),
        pytest.param(
            "import sys\nprint('out'); print('err', file=sys.stderr)",
            {},
            {"stdout": "out\n", "stderr": "err\n"},
            id="without a result what was printed",
        ),
        pytest.param("import sys\nresult = 3\nsys.exit(0)", {}, 3, id="exit 0 keeps the result"),
        pytest.param(NESTED, {"a": 1}, 22, id="functions see each other's globals"),
        pytest.param(
            "result = [datetime.now().year > 2000, datetime.datetime(2020, 1, 2).isoformat(),"
            " datetime.timedelta(days=1).days, datetime.fromisoformat('2020-01-02').day]",
            {},
            [True, "2020-01-02T00:00:00", 1, 2],
            id="datetime is the module and its class",
        ),
        pytest.param("result = a['k']", {"a": '{"k": 1}'}, 1, id="JSON text becomes data"),
        pytest.param("result = a", {"a": "['x', None]"}, ["x", None], id="so do python literals"),
        pytest.param("result = a", {"a": "{not data}"}, "{not data}", id="other text stays text"),
        pytest.param("result = [args, input_data, data]", {"a": 1}, [{"a": 1}] * 3, id="args"),
        pytest.param("result = data", {"data": 5}, 5, id="an input may be called data"),
        pytest.param("result = context['input']", {"a": 1}, {"a": 1}, id="context holds the input"),
        pytest.param("result = f'{{{a}}}'", {"a": 1}, "{1}", id="braces are the program's own"),
        pytest.param("result = get_val(a, 'b.0.c')", {"a": {"b": [{"c": 1}]}}, 1, id="get_val"),
        pytest.param("result = get_val(a, ['x'], 9)", {"a": {}}, 9, id="get_val's default"),
        pytest.param(
            "result = deep_merge({'a': {'b': 1}, 'l': [1]}, {'a': {'c': 2}, 'l': [2]})",
            {},
            {"a": {"b": 1, "c": 2}, "l": [1, 2]},
            id="deep_merge",
        ),
        pytest.param(
            "result = format_iso8601(datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))",
            {},
            "2020-01-01T00:00:00+00:00",
            id="format_iso8601, and datetime is the module",
        ),
        pytest.param("result = make_serializable({1, })", {}, [1], id="make_serializable"),
        pytest.param(
            "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: 'int'\nresult = P(1)",
            {},
            {"x": 1},
            id="dataclasses with text annotations",
        ),
        pytest.param(
            "import pickle\nclass P: pass\nresult = type(pickle.loads(pickle.dumps(P()))).__name__",
            {},
            "P",
            id="classes can be pickled",
        ),
        pytest.param("if __name__ == '__main__':\n  result = 1", {}, 1, id="a script is __main__"),
        pytest.param(
            "n = 0\ndef main():\n  global n\n  n += 1\n  return n\n"
            "if __name__ == '__main__':\n  main()",
            {},
            1,
            id="main runs once even where the script calls it",
        ),
    ],
)
def test_result(call: Any, code: str, given: dict[str, Any], expected: Any) -> None:
    assert call("python", {"code": code, "input": given}) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        pytest.param("datetime.datetime(2020, 1, 2, 3)", "2020-01-02T03:00:00", id="datetime"),
        pytest.param("datetime.date(2020, 1, 2)", "2020-01-02", id="date"),
        pytest.param("__import__('decimal').Decimal('1.5')", 1.5, id="Decimal"),
        pytest.param("(1, {2})", [1, [2]], id="tuple and set"),
        pytest.param("[{}.keys(), {}.values(), range(2)]", [[], [], [0, 1]], id="views, ranges"),
        pytest.param("{1: 'a', None: 'b'}", {"1": "a", "null": "b"}, id="plain keys become text"),
        pytest.param("uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001", id="others: str"),
        pytest.param("2 ** 64", float(2**64), id="more than 64 bits"),
        pytest.param("'é☃'", "é☃", id="Unicode"),
    ],
)
def test_conversion(call: Any, expression: str, expected: Any) -> None:
    assert call("python", {"code": f"result = {expression}"}) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        pytest.param("{'a': [float('nan')]}", "result['a'][0] is NaN", id="NaN, and where"),
        pytest.param("float('inf')", "NaN or infinite", id="infinity"),
        pytest.param("{'a': b'x'}", "base64", id="bytes"),
        pytest.param("'\\udc80'", "not valid Unicode", id="lone surrogates"),
        pytest.param("(lambda x: (x.append(x), x)[1])([])", "Circular", id="a circle"),
        pytest.param("{(1, 2): 3}", "keys", id="keys that are no text"),
    ],
)
def test_refuses_what_json_cannot_say(fail: Any, expression: str, words: str) -> None:
    error = fail("python", {"code": f"result = {expression}"})
    assert error.kind == "schema"
    assert not error.retryable
    assert words in error.message


def test_threads_are_waited_for(call: Any) -> None:
    # It is still asleep when the program's last line has run.
    code = (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()"
    )
    assert call("python", {"code": code})["stdout"] == "late\n"


def test_gives_the_names_of_the_execution(call: Any) -> None:
    code = "result = [execution_id, step, idempotency_key, variables['x'], context['x']]"
    found = call("python", {"code": code}, variables={"x": 1}, iteration=4)
    assert found == ["7", "probe", "7:probe:1:4", 1, 1]


def test_main_finds_variables_by_name_too(call: Any) -> None:
    code = "def main(x, context, step): return [x, context['x'], step]"
    assert call("python", {"code": code}, variables={"x": 1}) == [1, 1, "probe"]


def test_libs_are_imported_under_their_names(call: Any) -> None:
    libs = {
        "j": "json",
        "sqrt": {"from": "math", "import": "sqrt"},
        "p": {"from": "os", "import": "path"},
    }
    code = "result = [j.dumps({}), sqrt(4), p.sep]"
    assert call("python", {"code": code, "libs": libs}) == ["{}", 2.0, "/"]


def test_a_missing_lib_is_named(fail: Any) -> None:
    error = fail("python", {"code": "result = 1", "libs": ["no_such_module"]})
    assert error.message == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("key", ["code_b64", "code_base64"])
def test_takes_base64(call: Any, key: str) -> None:
    assert call("python", {key: base64.b64encode(b"result = 1").decode()}) == 1


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"source": {"type": "inline", "code": "result = 1"}}, id="source"),
        pytest.param({"script": {"source": {"type": "inline", "code": "result = 1"}}}, id="script"),
        pytest.param({"script": "result = 1"}, id="script as text"),
    ],
)
def test_takes_inline_sources(call: Any, config: dict[str, Any]) -> None:
    assert call("python", config) == 1


def test_takes_a_file(call: Any, fail: Any, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("result = a")
    script = {"uri": str(program), "source": {"type": "file"}}
    assert call("python", {"script": script, "args": {"a": 2}}) == 2
    missing = fail("python", {"script": {"uri": f"file://{tmp_path}/nope.py"}})
    assert missing.kind == "not_found"
    assert "nope.py" in missing.message


@pytest.mark.parametrize("config", [{}, {"code": " \n"}, {"code_b64": "?"}])
def test_says_that_there_is_no_program(fail: Any, config: dict[str, Any]) -> None:
    assert fail("python", config).kind == "schema"


def test_shows_the_users_own_lines_and_nothing_of_ours(fail: Any) -> None:
    code = "def f(x):\n    return 1 / x\n\nf(0)\n"
    error = fail("python", {"code": code})
    assert (error.kind, error.message) == ("exception", "ZeroDivisionError: division by zero")
    trace = error.details["py"]["traceback"]
    assert '  File "<step probe>", line 4, in <module>\n    f(0)\n' in trace
    assert '  File "<step probe>", line 2, in f\n    return 1 / x\n' in trace
    assert "app/tools" not in trace
    assert error.details["py"]["exception"] == "ZeroDivisionError"


def test_line_numbers_stay_right_with_a_top_level_return(fail: Any) -> None:
    error = fail("python", {"code": "x = 0\nif x: return 1\n1 / x\n"})
    assert 'File "<step probe>", line 3, in <module>' in error.details["py"]["traceback"]


def test_a_syntax_error_says_where(fail: Any) -> None:
    error = fail("python", {"code": "x = (\n"})
    assert error.message == "SyntaxError: '(' was never closed (<step probe>, line 1)"


def test_a_missing_argument_of_main_is_named(fail: Any) -> None:
    error = fail("python", {"code": "def main(wanted): pass"})
    assert "missing 1 required positional argument: 'wanted'" in error.message


def test_output_is_passed_on_while_the_program_runs(context: Context, call: Any) -> None:
    first = threading.Event()
    code = "import os, time\nprint('one')\nwhile not os.path.exists(flag): time.sleep(0.01)\nprint('two')"
    flag = context.workspace
    seen: list[str] = []

    def log(_stream: str, text: str) -> None:
        seen.append(text)
        if not first.is_set():
            first.set()
            flag.mkdir()

    call("python", {"code": code, "input": {"flag": str(flag)}}, log=log)
    assert "".join(seen) == "one\ntwo\n"


def test_state_does_not_leak_into_the_next_step(call: Any) -> None:
    leave = (
        "import os, sys, json, builtins\nos.environ['LEAK'] = '1'\njson.leak = 1\nbuiltins.leak = 1\n"
        "open('leak', 'w').close()\nimport colorsys\nos.umask(0)\nos.chdir('/')"
    )
    call("python", {"code": leave})
    look = (
        "import os, sys, json, builtins\nresult = ['LEAK' in os.environ, hasattr(json, 'leak'),"
        " hasattr(builtins, 'leak'), os.listdir('.'), 'colorsys' in sys.modules, os.getcwd() == '/']"
    )
    assert call("python", {"code": look}) == [False, False, False, [], False, False]


def test_random_numbers_differ_from_step_to_step(call: Any) -> None:
    code = {"code": "import random\nresult = random.random()"}
    assert len({call("python", code) for _ in range(4)}) == 4


def test_env_is_added_to_a_clean_environment(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKER_TOKEN", "canary")
    code = "import os\nresult = dict(os.environ)"
    found = call("python", {"code": code, "env": {"N": 5}})
    assert found["N"] == "5"
    assert found["HOME"] == found["TMPDIR"] == found["PWD"]
    assert "canary" not in found.values()


def test_a_step_timeout_ends_the_program(fail: Any) -> None:
    begin = time.monotonic()
    error = fail("python", {"code": "while True: pass", "timeout_seconds": 0.3})
    assert (error.kind, error.retryable) == ("timeout", True)
    assert "0.3 seconds" in error.message
    assert time.monotonic() - begin < 5


def test_the_context_limits_a_longer_timeout(fail: Any) -> None:
    error = fail("python", {"code": "while True: pass", "timeout": 99}, timeout=0.2)
    assert "0.2 seconds" in error.message


def test_a_cancelled_attempt_is_killed(context: Context, fail: Any) -> None:
    cancelled = threading.Event()
    # The program says when it runs; only then is it cancelled.
    error = fail(
        "python",
        {"code": "print('running')\nwhile True: pass"},
        cancelled=cancelled,
        log=lambda *_: cancelled.set(),
    )
    assert (error.kind, error.retryable) == ("cancelled", False)


def test_many_threads_at_once_get_their_own_results(context: Context, call: Any) -> None:
    results: dict[int, Any] = {}

    def work(n: int) -> None:
        results[n] = call("python", {"code": "result = [n, step]", "input": {"n": n}}, step=f"s{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n, f"s{n}"] for n in range(16)}


def test_large_input_and_result_pass(call: Any) -> None:
    text = "x" * 5_000_000
    assert call("python", {"code": "result = a", "input": {"a": text}}) == text


def test_a_result_above_the_limit_is_refused_clearly(context: Context, fail: Any) -> None:
    settings = replace(context.settings, result_bytes=1000)
    error = fail("python", {"code": "result = 'x' * 2000"}, settings=settings)
    assert error.kind == "resource"
    assert "2002 bytes" in error.message
    assert "CALLBOARD_RESULT_BYTES" in error.message


def test_a_data_frame_is_its_rows(call: Any) -> None:
    # Stands in for pandas, whose class has this name and this method.
    frame = (
        "class DataFrame:\n  def to_dict(self, orient): return [{'a': 1}] if orient == 'records' else {}\n"
        "result = DataFrame()"
    )
    assert call("python", {"code": frame}) == [{"a": 1}]


# ---------------------------------------------------------------------- around the program
def test_cwd_is_entered_and_named_where_it_is_not_there(
    call: Any, fail: Any, tmp_path: Path
) -> None:
    code = "import os\nresult = [os.getcwd(), os.environ['PWD'], os.environ['HOME'] == os.getcwd()]"
    assert call("python", {"code": code, "cwd": str(tmp_path)}) == [str(tmp_path)] * 2 + [False]
    error = fail("python", {"code": code, "cwd": "/no/where"})
    assert (error.kind, "/no/where" in error.message) == ("not_found", True)


def test_another_interpreter_runs_it(call: Any, fail: Any) -> None:
    found = shutil.which("python3", path="/usr/bin")
    if found is None:
        pytest.skip("needs a second Python")
    code = "import sys\nresult = [sys.base_prefix, a]"
    assert call("python", {"code": code, "python": found, "input": {"a": 1}}) == ["/usr", 1]
    assert call("python", {"code": code, "input": {"a": 1}})[0] == sys.base_prefix
    missing = fail("python", {"code": code, "python": "python9.9"})
    assert (missing.kind, "python9.9" in missing.message) == ("not_found", True)
    wrong = fail("python", {"code": code, "python": "true"})
    assert wrong.kind == "resource"


def test_deps_are_found_or_named(call: Any, fail: Any, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("value = 5")
    folder = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "theirs.py").write_text("value = 6")
    deps = {
        "sys_path": [str(tmp_path)],
        "venv_path": str(tmp_path / "venv"),
        "packages": {"tenant": ["pytest>=8", "pyyaml"]},
    }
    code = "import ours, theirs\nresult = [ours.value, theirs.value]"
    assert call("python", {"code": code, "deps": deps}) == [5, 6]
    assert call("python", {"code": "result = 1", "deps": ["pytest"]}) == 1
    missing = fail("python", {"code": "result = 1", "deps": ["no-such-package[x]==1", "pytest"]})
    assert missing.kind == "not_found"
    assert "deps: no-such-package[x]==1 not installed" in missing.message
    venv = fail("python", {"code": "result = 1", "deps": {"venv_path": "/no/where"}})
    assert "/no/where is no virtual environment" in venv.message


# ---------------------------------------------------------------------- credentials
GOOGLE = {
    "type": "service_account",
    "client_email": "a@b",
    "project_id": "p",
    "private_key": "k" * 9,
}
AWS = {
    "type": "aws",
    "access_key_id": "AKIA",
    "secret_access_key": "canary-secret",
    "region": "eu-west-1",
}
POSTGRES = {
    "type": "postgres",
    "db_host": "h",
    "db_port": 1,
    "db_user": "u",
    "db_password": "pw-canary",
}
SHOW = (
    "import os\nresult = {n: v for n, v in os.environ.items()"
    " if n.startswith(('AWS', 'PG', 'GOOGLE_CLOUD'))}"
)


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param(
            AWS,
            {
                "AWS_ACCESS_KEY_ID": "AKIA",
                "AWS_SECRET_ACCESS_KEY": "canary-secret",
                "AWS_REGION": "eu-west-1",
                "AWS_DEFAULT_REGION": "eu-west-1",
            },
            id="aws",
        ),
        pytest.param(
            POSTGRES,
            {"PGHOST": "h", "PGPORT": "1", "PGUSER": "u", "PGPASSWORD": "pw-canary"},
            id="postgres",
        ),
        pytest.param(GOOGLE, {"GOOGLE_CLOUD_PROJECT": "p"}, id="google"),
        pytest.param(
            {"pg": {"type": "postgres", "db_host": "h"}, "gcp": GOOGLE},
            {"PGHOST": "h", "GOOGLE_CLOUD_PROJECT": "p"},
            id="several",
        ),
        pytest.param({"type": "bearer", "token": "t" * 9}, {}, id="others"),
    ],
)
def test_credentials_are_where_their_libraries_look(call: Any, auth: Any, expected: Any) -> None:
    assert call("python", {"code": SHOW, "auth": auth}) == expected


def test_credentials_are_in_the_variable_auth(call: Any) -> None:
    secrets = Known({"api": '{"token": "canary-token"}'}, {"api": "bearer"})
    token = {"code": "result = auth['token']", "auth": "api"}
    assert call("python", token, secrets=secrets) == "canary-token"
    several = {"code": "result = auth['one']['token']", "auth": {"one": {"credential": "api"}}}
    assert call("python", several, secrets=secrets) == "canary-token"
    main = {"code": "def main(auth): return auth['type']", "auth": "api"}
    assert call("python", main, secrets=secrets) == "bearer"
    own = {"code": "result = auth", "auth": "api", "input": {"auth": 5}}
    assert call("python", own, secrets=secrets) == 5
    assert call("python", {"code": "result = 'auth' in globals()"}) is False


def test_a_key_file_is_private_and_gone_afterwards(call: Any) -> None:
    code = (
        "import json, os\npath = os.environ['GOOGLE_APPLICATION_CREDENTIALS']\n"
        "about = os.stat(path)\n"
        "result = [path, oct(about.st_mode), about.st_uid == os.getuid(), json.load(open(path))]"
    )
    path, mode, own, key = call("python", {"code": code, "auth": GOOGLE})
    assert (mode, own) == ("0o100600", True)
    assert key == {**GOOGLE, "token_uri": "https://oauth2.googleapis.com/token"}
    until(lambda: not Path(path).exists())


@pytest.mark.parametrize("form", ["key_json", "service_account_json"])
def test_a_google_key_may_be_json_inside(call: Any, form: str) -> None:
    code = "import os\nresult = open(os.environ['GOOGLE_APPLICATION_CREDENTIALS']).read()"
    assert call("python", {"code": code, "auth": {"type": "gcs", form: '{"k": 1}'}}) == '{"k": 1}'


def test_declared_variables_win_over_those_of_credentials(call: Any) -> None:
    code = "import os\nresult = os.environ['AWS_REGION']"
    assert call("python", {"code": code, "auth": AWS, "env": {"AWS_REGION": "mine"}}) == "mine"


def test_an_unknown_credential_is_named(fail: Any) -> None:
    error = fail("python", {"code": "result = 1", "auth": "nope"})
    assert (error.kind, "'nope'" in error.message) == ("auth", True)


def test_programs_that_ask_noetl_for_their_credential_get_it(call: Any, fail: Any) -> None:
    secrets = Known({"api": '{"token": "canary-token"}'})
    code = (
        "from noetl.worker.secrets import fetch_credential_by_key\n"
        "result = fetch_credential_by_key('api')['data']['token']"
    )
    assert call("python", {"code": code, "auth": "api"}, secrets=secrets) == "canary-token"
    aliased = {"code": code, "auth": {"x": {"credential": "api"}}}
    assert call("python", aliased, secrets=secrets) == "canary-token"
    error = fail("python", {"code": code})
    assert "the step has no credential 'api'" in error.message
    assert "auth" in error.message


# ---------------------------------------------------------------------- places of programs
def test_takes_a_program_from_the_web(call: Any, fail: Any, web: str) -> None:
    script = {"uri": f"{web}/program.py", "source": {"type": "http"}}
    assert call("python", {"script": script, "input": {"a": 3}}) == 3
    missing = fail("python", {"script": {"uri": f"{web}/nope.py"}})
    assert missing.kind == "not_found"
    secrets = Known({"api": '{"token": "canary-token"}'}, {"api": "bearer"})
    locked = {"uri": f"{web}/locked.py", "source": {"type": "http", "auth": "api"}}
    assert call("python", {"script": locked, "input": {"a": 4}}, secrets=secrets) == 4
    assert fail("python", {"script": {"uri": f"{web}/locked.py"}}).kind == "auth"


def test_a_metadata_service_is_no_place_for_programs(fail: Any) -> None:
    error = fail("python", {"script": {"uri": "http://169.254.169.254/latest"}})
    assert error.kind == "client_error"
    store = {
        "uri": "s3://b/p.py",
        "source": {"type": "s3", "auth": AWS, "endpoint": "http://169.254.169.254"},
    }
    assert fail("python", {"script": store}).kind == "client_error"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param({"uri": "s3://bucket/program.py"}, id="a URL"),
        pytest.param(
            {"path": "program.py", "source": {"type": "s3", "bucket": "bucket"}}, id="a key"
        ),
    ],
)
def test_takes_a_program_from_an_object_store(
    call: Any, fail: Any, web: str, script: dict[str, Any]
) -> None:
    source = {**script.get("source", {}), "auth": AWS, "endpoint": web}
    assert call("python", {"script": {**script, "source": source}, "input": {"a": 5}}) == 5
    error = fail("python", {"script": script})
    assert (error.kind, "under auth" in error.message) == ("auth", True)


@pytest.fixture
def web() -> Iterator[str]:
    """A server of one program: open, for a token, and as an S3 bucket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("authorization") == "Bearer canary-token"
            signed = "AKIA" in self.headers.get("authorization", "")
            open_to = {"/program.py": True, "/locked.py": allowed, "/bucket/program.py": signed}
            status = 404 if self.path not in open_to else 200 if open_to[self.path] else 401
            body = b"result = a" if status == 200 else b""
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("etag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
