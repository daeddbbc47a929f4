"""Official checkpoints are fetched, kept, found again without a network, or the error says how.

A small server on this machine speaks the hub's protocol, and huggingface_hub itself talks to it, in
processes of their own: it reads its environment when it is imported.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.models import SMALL_L1C, SMALL_L2A, network, write_checkpoint
from xtec.errors import ModelError, WrongModelError
from xtec.models import hub, official, registry

L1C = official.BY_NAME["tt-s2l1c-lambda-20"]
L2A = official.BY_NAME["tt-s2l2a-lambda-5"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Files of the hub by their path, and what was asked for."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """HEAD and GET of /OWNER/NAME/resolve/main/FILE, as huggingface.co answers them."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.wfile.write(self.answer())

    def answer(self):
        self.server.asked.append((self.command, self.path))
        data = self.server.files.get(self.path)
        self.send_response(404 if data is None else 200)
        if data is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            data = b""
        else:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return data

    def log_message(self, *args):
        pass


def address(one):
    return f"/{one.repository}/resolve/main/{one.file}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    return {
        address(L1C): Path(write_checkpoint(folder / "a.pt", network(SMALL_L1C))).read_bytes(),
        address(L2A): Path(write_checkpoint(folder / "b.pt", network(SMALL_L2A))).read_bytes(),
    }


@pytest.fixture
def server(files):
    pytest.importorskip("huggingface_hub")
    made = Hub(files)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def run(code, home, server=None, **environment):
    """What a process prints as JSON; without a server it has no network to speak of."""
    nowhere = "http://127.0.0.1:9"
    full = os.environ | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": server.url if server else nowhere,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **environment,
    }
    for name in ("XTEC_MODEL_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        full.pop(name, None)
    code = f"import json, sys\nfrom xtec.models import registry, hub\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=full, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


SETTINGS = """
from xtec.settings import Settings
one = Settings("tt-s2l1c")
card = one.card
print(json.dumps([one.model, one.model_digest, one.compression, str(card.path), "torch" in
                  sys.modules]))
"""

FIND = """
from xtec.errors import WrongModelError
try:
    found = registry.find(bytes.fromhex({digest!r}), {hint!r}).name
except WrongModelError as error:
    found = "WrongModelError: " + str(error)
print(json.dumps(found))
"""


def test_a_model_is_fetched_once_and_then_found_without_a_network(server, files, tmp_path):
    name, digest, compression, path, torch = run(SETTINGS, tmp_path, server)
    assert (name, compression, torch) == (L1C.name, 20, False)
    assert digest == hashlib.sha256(files[address(L1C)]).hexdigest()
    assert Path(path).is_relative_to(tmp_path)
    assert Path(path).name == L1C.file
    assert server.asked.count(("GET", address(L1C))) == 1
    server.asked.clear()
    again = run(SETTINGS, tmp_path, server)
    assert again == [name, digest, compression, path, False]
    offline = run(SETTINGS, tmp_path, HF_HUB_OFFLINE="1")
    assert offline == again
    found = run(FIND.format(digest=digest[:16], hint=name), tmp_path, server)
    assert found == name
    assert server.asked == []


def test_decoding_fetches_only_what_it_may(server, files, tmp_path):
    digest = hashlib.sha256(files[address(L1C)]).hexdigest()[:16]
    code = FIND.format(digest=digest, hint=L1C.name)
    refused = run(code, tmp_path, server)
    for part in (digest, repr(L1C.name), L1C.file, L1C.repository, "XTEC_MODEL_PATH", "XTEC_HUB=1"):
        assert re.search(re.escape(part), refused)
    assert server.asked == []
    found = run(code, tmp_path, server, XTEC_HUB="1")
    assert found == L1C.name
    other = run(FIND.format(digest="00" * 8, hint=L1C.name), tmp_path, server, XTEC_HUB="1")
    assert f"offers today has the digest {digest}" in other


def test_without_a_network_the_error_says_what_to_do(server, tmp_path):
    code = """
from xtec.errors import ModelError
said = []
for name in ("tt-s2l1c-lambda-20", "tt-s2l2a-lambda-700"):
    try:
        registry.resolve(name)
    except ModelError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    offline, _ = run(code, tmp_path, HF_HUB_OFFLINE="1")
    (absent,) = run(code, tmp_path, server)
    for said, name in ((offline, L1C.name), (absent, "tt-s2l2a-lambda-700")):
        one = official.BY_NAME[name]
        for part in (f"{name} could not be fetched", one.file, one.repository, "XTEC_MODEL_PATH"):
            assert part in said


def test_a_file_that_could_not_be_fetched_while_decoding(tmp_path):
    pytest.importorskip("huggingface_hub")
    code = FIND.format(digest="00" * 8, hint=L1C.name)
    said = run(code, tmp_path, XTEC_HUB="1", HF_HUB_OFFLINE="1")
    assert said.startswith("WrongModelError: this was written with the model of digest 00000000")
    assert "could not be fetched" in said


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without huggingface_hub, where no model was used."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
    return tmp_path


def test_without_huggingface_hub_the_error_names_the_extra(bare):
    with pytest.raises(ModelError, match=r"pip install 'xarray-tec\[hub\]'.*lambda-20\.pt from"):
        registry.resolve("tt-s2l1c", 20)
    assert hub.cached(L1C) == []


def test_a_file_put_there_by_hand_needs_no_hub(bare):
    write_checkpoint(bare / L1C.file, network(SMALL_L1C))
    card = registry.resolve("tt-s2l1c", 22)
    assert (card.name, card.compression, card.config) == (L1C.name, 20, SMALL_L1C)
    assert registry.find(bytes.fromhex(card.digest), card.name) == card
    with pytest.raises(ModelError, match="lambda-100"):
        registry.resolve("tt-s2l1c", 61)


def test_a_blob_of_the_cache_is_known_by_its_name(tmp_path):
    blob = tmp_path / ("ab" * 32)
    blob.touch()
    link = tmp_path / "file.pt"
    link.symlink_to(blob)
    assert hub.digest_hint(link) == blob.name
    plain = tmp_path / "plain.pt"
    plain.touch()
    assert hub.digest_hint(plain) is None


def hashed(monkeypatch):
    """The files that are hashed from now on."""
    found, plain = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda f, kind: found.append(f.name) or plain(f, kind)
    )
    return found


def cache(home, one, *versions):
    """The hub's cache as its documentation describes it; gives the snapshots."""
    folder = home / f"models--{one.repository.replace('/', '--')}"
    snapshots = []
    for i, data in enumerate(versions):
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        snapshot = folder / "snapshots" / f"{i:040}" / one.file
        snapshot.parent.mkdir(parents=True)
        snapshot.symlink_to(blob)
        snapshots.append(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(f"{len(versions) - 1:040}")
    return snapshots


def test_an_older_version_in_the_cache_is_found_and_no_other_is_hashed(
    monkeypatch, tmp_path, files
):
    """The owner may replace a file; what was written with the one before it stays readable."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.delenv(registry.SEARCH_PATH, raising=False)
    older = files[address(L1C)]
    newer = Path(write_checkpoint(tmp_path / "c.pt", network(SMALL_L1C, 1))).read_bytes()
    first, main = cache(tmp_path, L1C, older, newer)
    assert hub.cached(L1C) == [main, first]
    seen = hashed(monkeypatch)
    card = registry.find(hashlib.sha256(older).digest()[:8], L1C.name)
    assert card.path == first
    assert seen == [str(first)]
    with pytest.raises(WrongModelError):
        registry.find(bytes(8), L1C.name)
    assert seen == [str(first), *(s for s in seen[1:] if s.endswith(".safetensors"))]
    assert registry.resolve(L1C.name).path == main
    assert registry.find(hashlib.sha256(older).digest()[:8]).path == first  # no name given


def test_a_blob_whose_name_lies_is_not_believed(monkeypatch, tmp_path, files):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.delenv(registry.SEARCH_PATH, raising=False)
    (path,) = cache(tmp_path, L1C, files[address(L1C)])
    named = path.resolve().name
    path.resolve().write_bytes(files[address(L2A)])
    with pytest.raises(WrongModelError):
        registry.find(bytes.fromhex(named)[:8], L1C.name)


def test_files_of_the_name_are_hashed_first(monkeypatch, tmp_path, files):
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
    data = files[address(L1C)]
    for name in ("aaa.pt", "zzz.pt"):
        (tmp_path / name).write_bytes(data)
    write_checkpoint(tmp_path / "mmm.pt", network(SMALL_L2A))
    seen = hashed(monkeypatch)
    digest = hashlib.sha256(data).digest()[:8]
    assert registry.find(digest, "zzz").path.name == "zzz.pt"
    assert [Path(name).name for name in seen] == ["zzz.pt"]
    assert registry.find(digest, "renamed since").path.name == "aaa.pt"


@pytest.mark.parametrize(
    ("asked", "given"),
    [(5, 5), (0.01, 5), (12.4, 5), (12.5, 5), (12.6, 20), (60, 20), (61, 100), (1e5, 100)],
)
def test_the_nearest_lambda_is_taken(asked, given):
    """Nearest by difference; of two as near, the lower: as the reference does."""
    assert official.nearest("tt-s2l1c", asked).compression == given


def test_names_files_and_repositories_are_the_published_ones():
    assert [one.name for one in official.SERIES["tt-s2l1c"]] == [
        f"tt-s2l1c-lambda-{v}" for v in ("5", "20", "100")
    ]
    assert [one.file for one in official.SERIES["tt-s2l2a"]] == [
        f"TerraCodec_v1_TT_S2L2A_lambda-{v}.pt"
        for v in ("0.4", "1", "5", "20", "100", "200", "700")
    ]
    repositories = {one.repository for one in official.CHECKPOINTS}
    assert repositories == {f"embed2scale/TerraCodec-1.0-TT-S2{p}" for p in ("L1C", "L2A")}


def test_a_series_alone_is_no_model():
    with pytest.raises(ModelError, match=r"several models.*'tt-s2l1c-lambda-5'"):
        registry.resolve("tt-s2l1c")
