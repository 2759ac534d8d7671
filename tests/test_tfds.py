"""Tasks from prepared data sets of TensorFlow Datasets: small real ones, written here."""

import http.server
import json
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import assert_close
from PIL import Image
from typer.testing import CliRunner

from nlbound_jax import Settings, ladder, report, tasks
from nlbound_jax._settings import DataSpec
from nlbound_jax.cli._app import app
from nlbound_jax.report import load_run, save_run
from nlbound_jax.tasks import load_task

pytestmark = pytest.mark.float64

COUNTS = {"train": 200, "test": 60}
KINDS = tfds.features


def draw(split, *shape):
    """Images and classes; a class is bright or dark on the left."""
    rng = np.random.default_rng(len(split))
    labels = rng.integers(0, shape[3], COUNTS[split])
    images = rng.integers(0, 256, (len(labels), *shape[:3]), dtype=np.uint8)
    left = images[:, :, : shape[1] // 2]
    left[labels < shape[3] // 2] //= 2
    return images, labels


class NlboundGray(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SHAPE, CLASSES = (28, 28, 1), [str(k) for k in range(10)]

    def _info(self):
        features = {
            "image": KINDS.Image(shape=self.SHAPE),
            "label": KINDS.ClassLabel(names=self.CLASSES),
            "id": KINDS.Scalar(np.int64),  # the files are shuffled
        }
        return tfds.core.DatasetInfo(
            builder=self, features=KINDS.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(
            zip(*draw(split, *self.SHAPE, len(self.CLASSES)), strict=True)
        ):
            encoded = Image.fromarray(image.squeeze())
            yield i, {"image": encoded, "label": int(label), "id": i}


class NlboundColour(NlboundGray):
    VERSION = tfds.core.Version("1.0.0")
    SHAPE, CLASSES = (8, 12, 3), ["cat", "dog", "bird"]


class NlboundTable(tfds.core.GeneratorBasedBuilder):
    """No images, no test data, labels of unnamed classes, some of the inputs of other lengths."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "row": KINDS.Tensor(shape=(3,), dtype=np.float32),
            "ragged": KINDS.Tensor(shape=(None,), dtype=np.float32),
            "kind": KINDS.Scalar(np.int64),
            "word": KINDS.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=KINDS.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(80):
            row = np.asarray([i % 7, i % 3 - 1, i % 2 + 0.5], np.float32)
            ragged = np.ones(1 + i % 2, np.float32)
            yield i, {"row": row, "ragged": ragged, "kind": i % 4 - 1, "word": "yes"}


class NlboundSimple(NlboundTable):
    """The same, but that it says what its inputs and labels are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "row": KINDS.Tensor(shape=(3,), dtype=np.float32),
            "kind": KINDS.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=KINDS.FeaturesDict(features), supervised_keys=("row", "kind")
        )

    def _generate_examples(self):
        for key, example in super()._generate_examples():
            yield key, {name: example[name] for name in ("row", "kind")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    for kind in (NlboundGray, NlboundColour, NlboundTable, NlboundSimple):
        kind(data_dir=path, file_format="array_record").download_and_prepare()
    return path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def stored(folder, name, kind, split, part=""):
    """Images and classes as they were drawn, in the order of the files."""
    data = tfds.data_source(name, split=split + part, data_dir=folder)
    order = [int(example["id"]) for example in data]
    images, labels = draw(split, *kind.SHAPE, len(kind.CLASSES))
    return images[order], labels[order]


def same(task, direct):
    for name in ("x", "y", "x_test", "y_test", "target", "spectrum", "held_out"):
        one, two = getattr(task, name), getattr(direct, name)
        assert (one is None) == (two is None), name
        if two is not None:
            assert_close(one, two, rtol=1e-6, atol=1e-6 * np.abs(two).max())
    assert task.norm_bound == direct.norm_bound


def test_gray_images_are_pooled_as_mnist_is(folder, no_network):
    task = tasks.from_tfds("nlbound_gray", side=7, data_dir=folder)
    arrays = []
    for split in ("train", "test"):
        images, labels = stored(folder, "nlbound_gray", NlboundGray, split)
        pooled = images.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
        arrays += [pooled, labels >= 5]
    same(task, tasks.from_arrays(*arrays, norm_bound=255 * 7))
    assert task.name == "nlbound_gray 7x7"
    assert_close(task.transform(images), task.x_test, rtol=1e-9, atol=1e-12)
    assert_close(task.transform(images[3]), task.x_test[3], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", [None, 4])
def test_colours_are_kept(folder, no_network, side):
    task = tasks.from_tfds(
        "nlbound_colour", ["cat"], [2], side=side, data_dir=folder, split="train[:75%]"
    )
    arrays = []
    for split, part in (("train", "[:75%]"), ("test", "")):
        images, labels = stored(folder, "nlbound_colour", NlboundColour, split, part)
        images, labels = images[labels != 1], labels[labels != 1]
        flat = images.astype(float)
        if side is not None:
            flat = sum(flat[:, i::2, j::3] for i in range(2) for j in range(3)) / 6
        arrays += [flat.reshape(len(flat), -1), labels == 0]
    same(task, tasks.from_arrays(*arrays, norm_bound=255 * np.sqrt(arrays[0].shape[1])))
    assert task.name == f"nlbound_colour {'8x12x3' if side is None else '4x4x3'}"
    for x in (images, arrays[2]):  # images, or features as they are
        assert_close(task.transform(x), task.x_test, rtol=1e-9, atol=1e-12)
        assert_close(task.transform(x[3]), task.x_test[3], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"^`x` must be images \(n, height, width, 3\) with"):
        task.transform(images[..., :2])


def test_a_table(folder, no_network):
    name = "nlbound_table"
    task = tasks.from_tfds(
        name, [-1, 2], data_dir=folder, test_split=None, image_key="row", label_key="kind"
    )
    data = tfds.data_source(name, split="train", data_dir=folder)
    x = np.stack([example["row"] for example in data])
    kinds = np.stack([example["kind"] for example in data])
    same(task, tasks.from_arrays(x, np.isin(kinds, (-1, 2))))


def test_a_run_on_images_of_colour_is_kept(folder, tmp_path, monkeypatch):
    task = tasks.from_tfds("nlbound_colour", [0], side=2, components=4, data_dir=folder)
    bounds = [ladder.PrintedTheorem52Bound()]  # the others take most of the time
    made = report(task, Settings(width=4, end_time=1.0), bounds=bounds)
    save_run(made, task, tmp_path / "run.npz")
    images, _ = stored(folder, "nlbound_colour", NlboundColour, "test")
    run = load_run(tmp_path / "run.npz")
    with jax.enable_x64(True):
        direct = np.asarray(made.network.predict(task.x_test))
    assert run.transform.image == (2, 2, 3)
    assert (np.asarray(run.predict(images)) == direct).all()


def invoke(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_report_on_the_command_line(folder, no_network):
    args = ["report", "--dataset", "tfds:nlbound_gray", "--data-dir", folder, "--side", 2]
    less = ["--anchor-fraction", 0]
    result = invoke(
        *args, "--positive", "0, 1,2,3,4", "--width", 4, "--end-time", 1, "--json", *less
    )
    assert result.exit_code == 0, result.output
    assert "OpenCV" not in result.stderr
    found = json.loads(result.stdout)
    assert found["task"]["name"] == "nlbound_gray 2x2"
    assert (found["task"]["num_samples"], found["task"]["num_test"]) == (200, 60)
    task = tasks.from_tfds("nlbound_gray", range(5), side=2, data_dir=folder)
    assert_close(found["task"]["alignment"], task.alignment, rtol=1e-12)


def test_the_option_dataset_takes_names_of_classes_and_data_without_a_test_split(folder):
    options = {"data_dir": folder, "components": 3}
    task = load_task(DataSpec("tfds:nlbound_colour", side=2, positive="bird, cat", **options))
    same(task, tasks.from_tfds("nlbound_colour", [0, 2], side=2, **options))
    task = load_task(DataSpec("tfds:nlbound_simple", positive="1", data_dir=folder))
    assert (task.num_samples, task.x_test) == (80, None)


def test_tensorflow_is_not_imported(folder):
    code = (
        "import sys; from nlbound_jax import tasks; "
        "assert not [m for m in sys.modules if m.startswith('tensorflow')]; "
        f"tasks.from_tfds('nlbound_gray', side=4, data_dir={str(folder)!r}); "
        "assert 'tensorflow' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")


GRAY, TABLE = {"name": "nlbound_gray"}, {"name": "nlbound_table", "test_split": None}
ROWS = {**TABLE, "image_key": "row", "label_key": "kind"}
BAD = [
    ({"name": "fashion_mnist"}, "`name` must be prepared beforehand, got 'fashion_mnist', which"),
    ({"name": "nlbound_gray:2.0.0"}, "`name` must be prepared beforehand, got 'nlbound_gray:2"),
    ({"name": "fashion_mist"}, "`name` must be a data set that is prepared in "),
    ({"name": "huggingface:mnist"}, "names with a namespace are not supported."),
    ({"name": "no such"}, "`name` must be a data set that TFDS can read, got 'no such'"),
    ({**GRAY, "positive": ()}, "`positive` must be a non-empty collection of classes, got ()."),
    ({**GRAY, "positive": "7"}, "`positive` must be a non-empty collection of classes, got '7'."),
    ({**GRAY, "positive": [10]}, "`positive` must be of the 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8"),
    ({**GRAY, "negative": ["x"]}, "`negative` must be of the 10 classes"),
    ({**GRAY, "negative": [5]}, "`positive` and `negative` must be disjoint, got [5, 6, 7, 8, 9] "),
    ({**GRAY, "positive": range(10)}, "`split` must have samples of both classes, got 'train' wi"),
    ({**GRAY, "side": 3}, "`side` must divide the height and width of the images, got 3 for (28,"),
    ({**GRAY, "side": 0}, "`side` must be an integer of at least 1, got 0."),
    ({**GRAY, "split": "tran"}, "`split` must be a non-empty part of the splits train, test, got"),
    ({**GRAY, "split": "train[:0]"}, "`split` must be a non-empty part of the splits train, test"),
    ({**GRAY, "test_split": "train["}, "`test_split` must be a non-empty part of the splits"),
    ({**GRAY, "label_key": "image"}, "`label_key` must name a class or an integer, got 'image'"),
    ({**GRAY, "image_key": "label"}, "`image_key` must name an image or an array of numbers"),
    ({**GRAY, "side": 2, "components": 9}, "`components` must be an integer in [1, "),
    (TABLE, "`image_key` must be one of the features kind, ragged, row, word, got None."),
    (ROWS, "`positive` must be given for labels of unknown classes, got None."),
    ({**ROWS, "positive": ["a"]}, "`positive` must be classes, got 'a'."),
    ({**ROWS, "positive": [9]}, "`split` must have samples of both classes, got 'train' with 80"),
    ({**ROWS, "positive": [9], "negative": [8]}, "`split` must have samples of the classes, got"),
    ({**ROWS, "positive": [0], "side": 1}, "`side` must be None where the inputs are no images"),
    ({**ROWS, "label_key": "word"}, "`label_key` must name a class or an integer, got 'word'"),
    ({**ROWS, "positive": [0], "image_key": "ragged"}, "`split` must hold inputs of one shape,"),
    ({**ROWS, "positive": [0], "test_split": "test"}, "`test_split` must be a non-empty part of"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_gets_one_line_and_no_server_is_asked(folder, no_network, options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        tasks.from_tfds(**options, data_dir=folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tfds:fashion_mnist"], "`--dataset` must be prepared beforehand, got 'fashion_mnist'"),
        (["tfds:"], "`--dataset` must be mnist, tfds:NAME or FILE.npz, got 'tfds:'."),
        (["tfds:nlbound_gray", "--norm-bound", 1], "`--norm-bound` must be left out with tfds:nl"),
        (["tfds:nlbound_gray", "--positive", "x"], "`--positive` must be of the 10 classes"),
        (["tfds:nlbound_gray", "--side", 5], "`--side` must divide the height and width"),
    ],
)
def test_a_mistake_on_the_command_line(folder, no_network, args, message):
    result = invoke("report", "--data-dir", folder, "--dataset", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr


def test_the_extra_is_named_where_it_is_missing(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'nlbound_jax\[tfds\]'\.$"):
        tasks.from_tfds("nlbound_gray", data_dir=folder)
    result = invoke("report", "--dataset", "tfds:nlbound_gray", "--data-dir", folder)
    assert result.exit_code == 2
    assert (
        result.stderr == "nlbound: `from_tfds` needs the extra: pip install 'nlbound_jax[tfds]'.\n"
    )


def _other_format(path):
    info = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_format, "must be prepared as array_record, got 'nlbound_table' as tfrecord; conv"),
        (lambda path: next(path.glob("*-train.*")).unlink(), "must be a whole data set, got one "),
        (lambda path: next(path.glob("*-train.*")).write_bytes(b"x" * 99), "must be a whole data"),
        (lambda path: (path / "features.json").write_text("{"), "must be a data set that TFDS can"),
    ],
    ids=["format", "missing", "damaged", "features"],
)
def test_a_damaged_data_set_gets_one_line(tmp_path, spoil, message):
    NlboundTable(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    spoil(tmp_path / "nlbound_table" / "1.0.0")
    with pytest.raises(ValueError, match=rf"^`name` {message}[^\n]*\.$"):
        tasks.from_tfds(**ROWS, positive=[0], data_dir=tmp_path)


class NlboundFetched(NlboundTable):
    """One that needs a download, from a server on this machine."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        dl_manager.download(next(iter(self.url_infos)))
        return {"train": self._generate_examples()}


class Server(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(405)  # an answer, all the same

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, *args):
        pass


FETCHED = {**ROWS, "name": "nlbound_fetched", "positive": [0], "download": True}


def test_download_prepares_what_a_server_has(tmp_path, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/data"
        monkeypatch.setattr(NlboundFetched, "url_infos", {url: None})
        try:
            task = tasks.from_tfds(**FETCHED, data_dir=tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert task.num_samples == 80
    assert tasks.from_tfds(**{**FETCHED, "download": False}, data_dir=tmp_path).num_samples == 80


def test_download_without_network_says_so(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        host = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(NlboundFetched, "url_infos", {f"http://{host}/data": None})
        message = f"^`download` must be False without network, got True, .* answer from {host}.$"
        with pytest.raises(ValueError, match=message):
            tasks.from_tfds(**FETCHED, data_dir=tmp_path)
    assert not (tmp_path / "nlbound_fetched").exists()


def test_download_of_images_that_need_tensorflow_says_so(tmp_path, monkeypatch):
    if "tensorflow" in sys.modules:
        pytest.skip("TensorFlow is here")
    monkeypatch.setattr(Image, "fromarray", lambda image: np.atleast_3d(image))
    with pytest.raises(ValueError, match="^`download` must be False without TensorFlow, which"):
        tasks.from_tfds("nlbound_gray", data_dir=tmp_path, download=True)
