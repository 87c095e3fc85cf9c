"""Requests: what is taken, what is refused, who may ask; nothing outside the service's folder is ever touched."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.helpers import LOCAL, MP4, PNG, TestClient, everything, send, service, wait
from tinyworld.service.abilities import Abilities

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a file beside the service's folder that nobody is to reach."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.mp4").write_bytes(b"secret")
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    with service(place / "jobs", max_upload_mb=0.25, max_steps=60, max_frames=81, max_pixels=64 * 64) as client:
        yield client


def test_a_job_from_form_to_file(client: TestClient) -> None:
    answer = send(client, file=("first.png", PNG), prompt="a room", camera="orbit", frames="9", seed="7")
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == f"/jobs/{told['id']}" and re.fullmatch(r"[\w-]{22}", told["id"])
    wanted = {"kind": "generate", "frames": 9, "seed": 7, "height": None, "width": None, "steps": 50}
    assert told["request"] == {**wanted, "prompt": "a room", "camera": "orbit"} and told["name"] == "first.png"
    job = wait(client, told["id"])
    assert job["state"] == "done" and job["error"] is None and job["result"]["psnr"] is None
    assert job["files"] == {"video.mp4": f"/jobs/{job['id']}/files/video.mp4"}
    file = client.get(job["files"]["video.mp4"])
    assert file.content == b"0123456789" and file.headers["content-type"] == "video/mp4"
    part = client.get(job["files"]["video.mp4"], headers={"Range": "bytes=2-4"})
    assert part.status_code == 206 and part.content == b"234"
    folder = client.queue.shelf.place(job["id"])
    assert everything(folder) == {"job.json", "files", "files/video.mp4"}  # the upload and what was left over are gone
    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    assert not folder.exists() and client.get(f"/jobs/{job['id']}").status_code == 404
    assert client.delete(f"/jobs/{job['id']}").status_code == 404


def test_health(client: TestClient) -> None:
    assert client.get("/health").json() == {"state": "ready", "queued": 0, "running": 0}
    assert client.get("/nowhere").json() == {"error": "There is nothing at this address."}
    assert client.put("/jobs/lift").status_code == 405
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404  # they load from elsewhere


@pytest.mark.parametrize(
    ("kind", "form", "status", "said"),
    [
        ("generate", {"steps": "61"}, 422, "steps is '61'; it must be a whole number from 1 to 60"),
        ("generate", {"steps": "0", "seed": "-1"}, 422, r"steps is '0'.*\n.*seed|seed is '-1'.*\n.*steps"),
        ("generate", {"frames": "10"}, 422, "4k \\+ 1.*Use 9 or 13"),
        ("generate", {"frames": "85"}, 422, "frames is '85'"),
        ("generate", {"height": "30"}, 422, "multiples of 16"),
        ("generate", {"height": "64", "width": "80"}, 422, "up to 4096 pixels"),
        ("generate", {"camera": "sideways 3"}, 422, "camera 'sideways 3'"),
        ("generate", {"camera": "/etc/passwd"}, 422, "no file, and no path of that name"),
        ("generate", {"camera": "../secret.mp4"}, 422, "no file, and no path of that name"),
        ("generate", {"camera": "x" * 201}, 422, "camera has 201 letters"),
        ("generate", {"prompt": "a\0b"}, 422, "NUL"),
        ("generate", {"promt": "a"}, 422, 'Did you mean "prompt"'),
        ("generate", {"prompt": "a" * 20_000}, 413, "16384 bytes"),
        ("generate", {"image": "../secret.mp4"}, 400, "image must be a file"),
        ("lift", {"sigma": "nan"}, 422, "sigma is 'nan'"),
        ("lift", {"sigma": "2"}, 422, "sigma is '2'"),
        ("reconstruct", {"frames": "many"}, 422, "whole number"),
        ("steal", {}, 404, "reconstruct, lift, generate"),
    ],
)
def test_mistakes_are_told(client: TestClient, kind: str, form: dict[str, str], status: int, said: str) -> None:
    answer = send(client, kind, MP4 if kind in ("lift", "reconstruct") else None, **form)
    assert answer.status_code == status and re.search(said, answer.json()["error"]), answer.text
    assert "Traceback" not in answer.text
    assert everything(client.queue.shelf.folder) == {"service.lock"}


@pytest.mark.parametrize("kind", ["lift", "reconstruct"])
def test_files_that_are_no_videos(client: TestClient, kind: str) -> None:
    assert send(client, kind).status_code == 422  # of fields: there is no prompt here
    assert "A video is needed" in send(client, kind, ("a.mp4", b""), frames="").json()["error"]
    playlists = [
        b"#EXTM3U\n#EXTINF:1,\nfile:///secret.mp4\n",
        b"ffconcat version 1.0\nfile secret.mp4\n",
        b"<MPD></MPD>",
    ]
    for content in (b"text", PNG, *playlists):
        answer = send(client, kind, content)
        assert answer.status_code == 415 and "this is not an mp4" in answer.json()["error"]
    for content in (MP4, b"%!PS-Adobe EPSF", b"<svg/>"):
        assert send(client, file=content).status_code == 415
    assert everything(client.queue.shelf.folder) == {"service.lock"}


NAMES = [
    "../../evil.mp4",
    "/tmp/evil.mp4",
    "..\\..\\evil.mp4",
    "a\0b.mp4",
    "%2e%2e%2fevil",
    ".",
    "..",
    "",
    "job.json",
    "é" * 300,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_words(client: TestClient, place: Path, name: str) -> None:
    """Whatever a file is called, it lies in its job's folder under its fixed name."""
    before = everything(place)
    boundary = "----cut"
    body = f'--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="{name}"\r\n\r\n'.encode() + MP4
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = client.post("/jobs/lift", content=body + f"\r\n--{boundary}--\r\n".encode(), headers=headers)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (
        "/" not in told["name"]
        and "\\" not in told["name"]
        and 0 < len(told["name"]) <= 100
        and told["name"].isprintable()
    )
    wait(client, told["id"])
    grown = everything(place) - before
    own = f"jobs/{told['id']}"
    assert grown == {own, f"{own}/job.json", f"{own}/files", f"{own}/files/video.mp4"}
    client.delete(f"/jobs/{told['id']}")
    assert everything(place) == before


def raw(client: TestClient, path: str, method: str = "GET") -> int:
    """The status of an address that nobody has tidied on its way."""
    import asyncio
    from urllib.parse import unquote

    answers: list[int] = []
    asked: list[int] = []

    async def ask() -> None:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path, errors="surrogateescape"),
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "server": ("127.0.0.1", 80),
        }

        async def receive() -> dict[str, object]:
            if answers or asked:
                await asyncio.sleep(60)
            asked.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def took(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                answers.append(int(str(message["status"])))

        await client.app(scope, receive, took)  # type: ignore[arg-type]

    asyncio.run(ask())
    return answers[0]


def test_addresses_reach_nothing_else(client: TestClient, place: Path) -> None:
    told = send(client, prompt="fast").json()["id"]
    wait(client, told)
    before = everything(place)
    names = [
        "job.json",
        "../job.json",
        "..%2fjob.json",
        "%2e%2e/job.json",
        "%2e%2e%2f%2e%2e%2fsecret.mp4",
        "video.mp4%00",
        ".",
    ]
    names += [
        "",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "..%5cjob.json",
        "depth.mp4",
        "files/video.mp4",
        "%ff",
        "video.mp4/",
    ]
    for name in names:
        status = raw(client, f"/jobs/{told}/files/{name}")
        assert status in (404, 307), name  # 307: to the address without its last slash
    identifiers = [
        "..",
        ".",
        "%2e%2e",
        f"{told}%2f..%2f{told}",
        f"{told}.",
        f"{told}%00",
        "service.lock",
        f"../jobs/{told}",
    ]
    for identifier in identifiers:
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/files/video.mp4"), ("POST", "/delete")):
            assert raw(client, f"/jobs/{identifier}{path}", method) in (404, 405, 307), identifier
    assert everything(place) == before and raw(client, f"/jobs/{told}/files/video.mp4") == 200
    client.delete(f"/jobs/{told}")


def test_too_large(client: TestClient) -> None:
    """By its stated length, and without one while it comes; nothing stays."""
    assert send(client, "lift", MP4 + bytes(2**18)).status_code == 413
    sent = []

    def pieces() -> Iterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        for _ in range(100):
            sent.append(1)
            yield MP4 + bytes(2**15)

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    answer = client.post("/jobs/lift", content=pieces(), headers=headers)
    assert answer.status_code == 413 and "0.25 MiB" in answer.json()["error"]
    assert everything(client.queue.shelf.folder) == {"service.lock"}


def test_broken_forms(client: TestClient) -> None:
    def post(content: bytes, kind: str = "multipart/form-data; boundary=cut") -> tuple[int, str]:
        answer = client.post("/jobs/lift", content=content, headers={"Content-Type": kind})
        return answer.status_code, answer.json()["error"]

    field = b'--cut\r\nContent-Disposition: form-data; name="seed"\r\n\r\n1\r\n'
    file = b'--cut\r\nContent-Disposition: form-data; name="%b"; filename="a.mp4"\r\n\r\n' + MP4 + b"\r\n"
    assert post(b"{}", "application/json")[0] == 415
    assert post(field, "multipart/form-data")[0] == 415
    assert post(b"no form at all")[0] == 400
    assert post(field)[1] == "The form ends too early. Send it again."
    assert "twice" in post(field * 2 + b"--cut--\r\n")[1]
    assert "one file is taken, in the field video" in post(file % b"image" + b"--cut--\r\n")[1]
    assert "one file is taken" in post(file % b"video" * 2 + b"--cut--\r\n")[1]
    assert (
        "more than 32 fields"
        in post(b"".join(field.replace(b"seed", b"s%d" % n) for n in range(33)) + b"--cut--\r\n")[1]
    )
    assert "no name" in post(b"--cut\r\n\r\n1\r\n--cut--\r\n")[1]
    assert everything(client.queue.shelf.folder) == {"service.lock"}


def test_many_at_once(tmp_path: Path) -> None:
    """Of 24 senders at once, as many get a place as there are; every job is done once, by one worker, in its order."""
    with service(tmp_path / "jobs", max_queue=8) as client:
        first = send(client, prompt="slow").json()["id"]
        wait(client, first, ("running",))
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda number: send(client, prompt="fast", seed=str(number)), range(24)))
        taken = [answer.json() for answer in answers if answer.status_code == 202]
        full = [answer for answer in answers if answer.status_code == 503]
        assert len(taken) == 8 and len(full) == 16
        assert "8 jobs wait already" in full[0].json()["error"] and full[0].headers["retry-after"]
        assert client.get("/health").json() == {"state": "ready", "queued": 8, "running": 1}
        places = sorted(client.get(f"/jobs/{job['id']}").json()["jobs_before"] for job in taken)
        assert places == list(range(1, 9))
        gone = taken[3]["id"]
        assert client.delete(f"/jobs/{gone}").status_code == 204  # one that waits is never begun
        assert client.delete(f"/jobs/{first}").status_code == 204  # the one that runs ends
        ended = [wait(client, job["id"]) for job in taken if job["id"] != gone]
        assert {job["state"] for job in ended} == {"done"} and len({job["result"]["pid"] for job in ended}) == 1
        jobs = sorted((client.queue.job(job["id"])[0] for job in ended), key=lambda job: job.number)
        assert [job.started for job in jobs] == sorted(job.started for job in jobs)
        assert {path.name for path in (tmp_path / "jobs").iterdir()} == {"service.lock", *(job["id"] for job in ended)}


def test_what_is_not_there(tmp_path: Path) -> None:
    some = Abilities({"lift": "This service has no world model."}, (32, 48, 5), False, True)
    with service(tmp_path / "jobs", abilities=some) as client:
        answer = send(client, "lift", MP4)
        assert answer.status_code == 409 and answer.json()["error"] == "This service has no world model."
        assert "no text encoder" in send(client, prompt="a room").json()["error"]
        page = client.get("/").text
        assert "Generate a world" in page and "Lift a video" not in page and 'name="prompt"' not in page


def test_tokens(tmp_path: Path) -> None:
    with service(tmp_path / "jobs", token=TOKEN, base="http://team.example") as client:
        told = client.get("/jobs/x")
        assert told.status_code == 401 and "Authorization: Bearer" in told.json()["error"]
        for wrong in ("Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer"):
            assert client.get("/jobs/x", headers={"Authorization": wrong}).status_code == 401
        assert send(client).status_code == 401
        assert client.get("/health").status_code == 200
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/jobs/x", headers=right).status_code == 404
        to_login = client.get("/", headers={"Accept": "text/html"})
        assert to_login.status_code == 303 and to_login.headers["location"] == "/login"
        assert client.post("/login", files={"token": (None, "wrong")}).status_code == 401
        answer = client.post("/login", files={"token": (None, TOKEN)})
        cookie = answer.headers["set-cookie"]
        assert (
            answer.status_code == 303 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
        )
        assert client.get("/").status_code == 200  # by the cookie
        client.cookies.clear()
        assert client.get("/", headers={"Cookie": "tinyworld_token=guess"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_have_no_way_in(client: TestClient, headers: dict[str, str]) -> None:
    """A page that the user has open may send forms to this machine, and may have its name point here."""
    answer = client.post("/jobs/generate", files={"prompt": (None, "fast")}, headers=headers)
    assert answer.status_code == 403
    assert everything(client.queue.shelf.folder) == {"service.lock"}
    assert client.get("/health", headers={"Host": "localhost:8000"}).status_code == 200


def test_the_page(tmp_path: Path) -> None:
    with service(tmp_path / "jobs") as client, service(tmp_path / "other") as stranger:
        answer = client.get("/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (
            answer.headers["referrer-policy"] == "same-origin"
        )  # with no-referrer, browsers hide where a form comes from
        assert not re.search(r'(?:src|href|action)="?(?:https?:)?//', answer.text)
        html = {"Accept": "text/html", "Origin": LOCAL}
        form = {"image": ("<img src=x onerror=alert(1)>.png", PNG), "camera": (None, "orbit")}
        sent = client.post("/jobs/generate", files=form, headers=html)
        assert sent.status_code == 303 and sent.headers["location"] == "/"
        (job,) = [job for job, _ in client.queue.of(client.queue._jobs[next(iter(client.queue._jobs))].owner)]
        assert wait(client, job.id)["name"] == "<img src=x onerror=alert(1)>.png"
        page = client.get("/").text
        assert "<img" not in page and "&lt;img src=x" in page and f"/jobs/{job.id}/files/video.mp4" in page
        wrong = client.post("/jobs/generate", files={"prompt": (None, "mistake")}, headers=html)
        assert wrong.status_code == 303
        failed = next(job for job, _ in client.queue.of(job.owner))
        assert wait(client, failed.id)["error"] == "the picture is <b>wrong</b>"
        assert "&lt;b&gt;wrong" in client.get("/").text
        bad = client.post("/jobs/generate", files={"steps": (None, "<script>")}, headers=html)
        assert bad.status_code == 422 and "&lt;script&gt;" in bad.text and "text/html" in bad.headers["content-type"]
        assert client.post(f"/jobs/{job.id}/delete", headers=html).status_code == 303
        assert job.id not in client.get("/").text
        assert failed.id not in stranger.get("/").text
        client.cookies.clear()
        assert failed.id not in client.get("/").text  # another browser
