"""The command as a whole process: terminals of any width, pipes that close, disks that are full."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

KVPLAN = (sys.executable, "-m", "kvplan")
TABLE = ("capacity", "llama-3.1-8b", "--gpu", "h100-sxm")
SHORT = ("--hidden", "32", "--prompt-tokens", "24", "--tokens", "4", "--batch", "2")
PROOF = ("simulate", "gemma-3-4b", *SHORT)
TIME = ("roofline", "mixtral-8x7b", "--gpu", "h100-sxm", "--tp", "4", "--batch", "1,64", "--price", "3")
ENDLESS = ("simulate", "llama-3.1-8b", "--prompt-tokens", "2k", "--tokens", "4k", "--batch", "8")
ESCAPE = "\x1b["
CLEAN = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "LC_ALL", "PYTHONIOENCODING")}


def run(*arguments, program=KVPLAN, **environment):
    return subprocess.run(
        [*program, *arguments], capture_output=True, env={**CLEAN, **environment}, check=False, timeout=60
    )


def on_terminal(arguments, columns, **environment):
    """Return what a terminal of this many columns receives."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [*KVPLAN, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, env={**CLEAN, **environment}
    ) as process:
        os.close(theirs)
        received = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            received += piece
    os.close(ours)
    assert process.returncode == 0
    return received.decode().replace("\r\n", "\n")


def columns_of(text):
    """Return each table's columns, ``{heading: cells}``, and what it says there was no room for."""
    tables = []
    for body, left_out in re.findall(
        r"((?:^  (?!\(no room).*\n)+)(?:  \(no room for: ([^)]*)\)\n)?", text, re.MULTILINE
    ):
        rows = [re.split(r" {3,}", line.strip()) for line in body.splitlines()]
        by_heading = dict(zip(rows[0], zip(*rows[1:], strict=False), strict=False))
        tables.append((by_heading, set(" ".join(left_out.split()).split(", ")) - {""}))
    return tables


@pytest.fixture(scope="module")
def wide():
    """What a question's tables hold where there is room for everything: in a pipe."""
    found = {}

    def of(arguments):
        if arguments not in found:
            found[arguments] = columns_of(run(*arguments).stdout.decode())
        return found[arguments]

    return of


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("arguments", [("models", "list"), ("gpus", "list")], ids=" ".join)
def test_no_cell_of_a_table_is_cut_at_any_width(arguments, columns, wide):
    shown = columns_of(on_terminal(arguments, columns, NO_COLOR="1"))
    whole = wide(arguments)
    assert len(shown) == len(whole)
    for (narrow, left_out), (full, nothing) in zip(shown, whole, strict=True):
        assert not nothing
        missing = {heading.partition(" (")[0] for heading in full.keys() - narrow.keys()}
        assert missing == left_out
        assert narrow == {heading: full[heading] for heading in narrow}
        if columns == 200:
            assert not left_out


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_number_of_a_plan_is_shown_or_its_column_named(columns):
    text, piped = on_terminal(TABLE, columns, NO_COLOR="1"), run(*TABLE).stdout.decode()
    numbers = re.findall(r"\d[\d.,]*", piped)
    assert [number for number in re.findall(r"\d[\d.,]*", text) if number not in numbers] == []
    assert [number for number in numbers if number not in text] == []
    left_out = {name for _, names in columns_of(text) for name in names}
    assert left_out <= ({"fits", "live", "limited by"} if columns == 40 else set())


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_number_of_where_time_goes_is_whole_or_its_column_named(columns):
    text, piped = on_terminal(TIME, columns, NO_COLOR="1"), run(*TIME).stdout.decode()
    numbers = {*re.findall(r"\d[\d.,]*", piped)}
    assert [number for number in re.findall(r"\d[\d.,]*", text) if number not in numbers] == []
    if columns == 200:
        assert "(no room for" not in text
        assert max(map(len, text.splitlines())) <= 200
    else:
        assert "(no room for: " in text
    if columns == 80:
        tables = text.partition("\nWhere the limit changes")[0]
        assert max(map(len, tables.splitlines())) <= 80
        assert {"bound (ms)", "estimate (ms)", "limit"} <= {*re.split(r" {2,}", tables)}


@pytest.fixture(scope="module")
def piped_proof():
    return run(*PROOF).stdout.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_count_of_a_proof_is_shown_at_any_width(columns, piped_proof):
    """Counts of four digits and more; what a machine measures is another number every time."""
    text = on_terminal(PROOF, columns, NO_COLOR="1")
    proof, whole = (of.partition("\nSpeed here")[0] for of in (text, piped_proof))
    counts = re.findall(r"\d[\d,]*,\d{3}", whole)
    assert len(counts) > 20
    shown = re.findall(r"\d[\d,]*,\d{3}", proof)
    if columns == 40:
        assert "(no room for: agree, kind, allocated" in " ".join(proof.split())
    else:
        assert shown == counts
    assert {*shown} <= {*counts}
    assert {*counts[:20]} <= {*shown}
    if columns == 80:
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(
    "arguments", [("models", "show", "gemma-3-27b"), ("gpus", "show", "h100-sxm")], ids=" ".join
)
def test_every_figure_keeps_its_number_and_unit_on_one_line(arguments, columns):
    lines = {" ".join(line.split()) for line in on_terminal(arguments, columns, NO_COLOR="1").splitlines()}
    figures = [
        " ".join(line.split())
        for line in re.split("\nTensors|\nKernels", run(*arguments).stdout.decode())[0].splitlines()
    ]
    assert [
        line for line in figures if re.search(r" \d[\d.,]*( [A-Za-z/]+)?$", line) and line not in lines
    ] == []


def test_a_pipe_has_the_natural_width_and_no_colour():
    out = run("models", "list").stdout.decode()
    assert max(map(len, out.splitlines())) > 80
    assert "…" not in out
    assert ESCAPE not in out


# Colour


def test_a_terminal_has_colour():
    assert ESCAPE in on_terminal(TABLE, 100, TERM="xterm")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_where_the_environment_says_so(environment):
    assert ESCAPE not in on_terminal(TABLE, 100, **{"TERM": "xterm", **environment})


def test_the_option_decides_over_the_environment():
    assert ESCAPE not in on_terminal((*TABLE, "--color", "never"), 100, TERM="xterm")
    assert ESCAPE in run(*TABLE, "--color", "always", NO_COLOR="1").stdout.decode()


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_proof_has_no_colour_where_the_environment_says_so(environment):
    assert ESCAPE not in on_terminal(PROOF, 100, **{"TERM": "xterm", **environment})


# Encoding


def test_a_proof_is_ascii_where_the_terminal_may_be():
    done = run(*PROOF, LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=lambda e: "=".join(*e.items()),
)
def test_a_table_is_ascii_where_the_terminal_may_be(environment):
    done = run(*TABLE, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"####" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("form", ["table", "plain", "json", "csv", "md"])
def test_no_format_breaks_on_an_ascii_stream(form):
    done = run("gpus", "list", "--format", form, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_an_error_is_ascii_where_the_terminal_is():
    done = run("models", "show", "é", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.isascii()


# Streams


@pytest.mark.parametrize(
    "arguments", [TABLE, PROOF, ("models", "list"), ("--help",), ("schema", "model")], ids=" ".join
)
def test_a_reader_that_goes_away_is_no_error(arguments):
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [*KVPLAN, *arguments], stdout=write_end, stderr=subprocess.PIPE, env=CLEAN
    ) as process:
        os.close(write_end)
        os.close(read_end)
        error = process.stderr.read()
    assert (process.returncode, error) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [TABLE, ("--version",), ("--help",), ("schema", "gpu")], ids=" ".join)
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*KVPLAN, *arguments], stdout=full, stderr=subprocess.PIPE, env=CLEAN, check=False
        )
    assert done.returncode == 3
    assert done.stderr == b"error: cannot write to standard output: no space left on device\n"


def test_a_proof_that_cannot_be_written_is_one_line(tmp_path):
    """Standard output is a file that may not grow: full for this process, and for nobody else."""
    limited = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *KVPLAN)
    with open(tmp_path / "answer", "wb") as answer:
        done = subprocess.run(
            [*limited, *PROOF], stdout=answer, stderr=subprocess.PIPE, env=CLEAN, check=False, timeout=60
        )
    assert (done.returncode, (tmp_path / "answer").read_bytes()) == (3, b"")
    assert done.stderr == b"error: cannot write to standard output: file too large\n"


def test_closed_streams():
    closed = ("sh", "-c", 'exec "$@" >&-', "sh", *KVPLAN)
    done = run("models", "show", "gpt2", program=closed)
    assert (done.returncode, done.stderr) == (3, b"error: cannot write to standard output: it is closed\n")
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh", *KVPLAN)
    assert run("models", "show", "nothing", program=closed).returncode == 2


def test_a_device_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*KVPLAN, "schema", "gpu", "-o", str(pipe)], env=CLEAN) as process:
        assert pipe.read_text().startswith("{")
    assert process.returncode == 0
    assert pipe.is_fifo()


# Interrupts, Python's switches, a bare environment


def test_an_interrupt_is_no_traceback(tmp_path):
    """The process waits to open a pipe nobody writes to: a place where it surely is when the signal comes."""
    pipe = tmp_path / "answer"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [*KVPLAN, "schema", "gpu", "-o", str(pipe)], stderr=subprocess.PIPE, env=CLEAN
    ) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert (process.returncode, error) == (130, b"interrupted\n")


def test_an_interrupted_run_leaves_nothing(tmp_path):
    """Progress on the terminal says that the run has begun; the line goes away, and the cursor comes back."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*KVPLAN, *ENDLESS, "-o", str(tmp_path / "answer")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**CLEAN, "TERM": "xterm", "OPENBLAS_NUM_THREADS": "1"},
    ) as process:
        os.close(theirs)
        told = b""
        while b", step " not in told:
            told += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        answer = process.stdout.read()
    told += os.read(ours, 65_536)
    os.close(ours)
    assert (process.returncode, answer) == (130, b"")
    assert told.rstrip().endswith(b"interrupted")
    assert told.rfind(b"\x1b[2K") > told.rfind(b", step "), "the line stays"
    assert told.rfind(b"\x1b[?25h") > told.rfind(b"\x1b[?25l"), "the cursor stays hidden"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "switches", [("-O",), ("-OO",), ("-W", "error"), ("-X", "dev", "-W", "error"), ("-I",)], ids=" ".join
)
def test_python_switches_change_nothing(switches):
    asked = (*TABLE, "--explain", "memory")
    done = run(*asked, program=(sys.executable, *switches, "-m", "kvplan"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == run(*asked).stdout


def test_python_switches_change_nothing_of_a_proof():
    asked = ("simulate", "gpt2", "--layers", "1", *SHORT, "--explain", "checks")
    done = run(*asked, program=(sys.executable, "-OO", "-X", "dev", "-W", "error", "-m", "kvplan"))
    assert (done.returncode, done.stderr) == (0, b"")
    usual = run(*asked, OPENBLAS_NUM_THREADS="2", PYTHONHASHSEED="7").stdout
    assert timeless(done.stdout) == timeless(usual)


def timeless(text):
    """Derivations without the error of logits, whose last digits depend on the order of a sum."""
    return [line for line in text.decode().splitlines() if not line.startswith("checks.cached_logit_error")]


def test_an_environment_with_nothing_in_it_and_no_home():
    done = subprocess.run([*KVPLAN, *TABLE], capture_output=True, env={}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    done = run(*TABLE, HOME="/nonexistent", XDG_CONFIG_HOME="/nonexistent/config")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("form", ["table", "json"])
def test_where_time_goes_has_the_same_bytes_whatever_the_hash_seed(form):
    first, other = (run(*TIME, "--format", form, PYTHONHASHSEED=seed).stdout for seed in ("1", "2"))
    assert first == other != b""


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_same_bytes_whatever_the_hash_seed(form):
    asked = ("capacity", "deepseek-v3", "--gpu", "h200-sxm", "--gpus", "8", "--format", form)
    assert len({run(*asked, PYTHONHASHSEED=seed).stdout for seed in ("0", "1", "4242")}) == 1


def test_mistakes_come_in_the_same_order_whatever_the_hash_seed(tmp_path):
    kinds = "".join(
        f"  k{n}:\n    attention: {{num_attention_heads: 1, num_key_value_heads: 1, head_dim: 1}}\n"
        "    mlp: {intermediate_size: 1}\n"
        for n in range(9)
    )
    (tmp_path / "m.yaml").write_text(
        "name: m\nsource: s\ntorch_dtype: bfloat16\nhidden_size: 1\nvocab_size: 1\n"
        f"max_position_embeddings: 1\nkinds:\n{kinds}layers:\n  - pattern: [k4]\n"
    )
    told = {
        run("models", "show", str(tmp_path / "m.yaml"), PYTHONHASHSEED=seed).stderr
        for seed in ("0", "1", "2")
    }
    assert len(told) == 1
    assert len(told.pop().splitlines()) == 8
