"""Data sets of TensorFlow Datasets on disk: found, if asked for prepared, and read."""

import contextlib
import importlib
import logging
import threading
import time
import urllib.parse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import _validate

# Seconds within which a server of the data set must answer before a download is begun. TFDS
# itself would retry for minutes.
_PATIENCE = 5.0
_HOSTS = 8


class Source(NamedTuple):
    """A prepared data set and the two features of it that make a task."""

    builder: Any
    image_key: str
    label_key: str

    @property
    def label(self) -> Any:
        return self.builder.info.features[self.label_key]

    @property
    def top(self) -> float | None:
        """The largest entry that an input may have, if its dtype says so (255 for bytes)."""
        dtype = np.dtype(self.builder.info.features[self.image_key].np_dtype)
        return float(np.iinfo(dtype).max) if dtype in (np.uint8, np.uint16) else None

    @property
    def is_image(self) -> bool:
        kind = _library().features.Image
        return isinstance(self.builder.info.features[self.image_key], kind)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.builder.info.splits)

    def examples(self, name: str, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split; `name` is what the caller calls it."""
        try:
            data = self.builder.as_data_source(split)
        except (ValueError, KeyError, AssertionError):
            raise ValueError(
                f"`{name}` must be a non-empty part of the splits {', '.join(self.splits)}, "
                f"got {split!r}."
            ) from None
        except OSError as error:
            raise self._damaged(error) from None
        with _no_advice():
            for i in range(len(data)):
                try:
                    example = data[i]
                except Exception as error:  # of the reader, of Pillow, of the protocol buffers
                    raise self._damaged(error) from None
                yield example

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"`name` must be a whole data set, got one that is damaged in "
            f"{str(self.builder.data_dir)!r}: {_first_line(error)}."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Hold back the advice to install OpenCV: Pillow decodes as well."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("OpenCV is not installed")

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _library() -> Any:
    try:
        importlib.import_module("importlib_resources")  # TFDS needs it without saying so
        return importlib.import_module("tensorflow_datasets")
    except ImportError:
        raise ImportError("`from_tfds` needs the extra: pip install 'nlbound_jax[tfds]'.") from None


def find_source(
    name: str,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    image_key: str | None = None,
    label_key: str | None = None,
) -> Source:
    """The data set prepared in `data_dir`; without `download` nothing but files is looked at."""
    tfds = _library()
    where = None if data_dir is None else str(_validate.path("data_dir", data_dir).expanduser())
    download = _validate.flag("download", download)
    builder = _on_disk(name, where)
    if builder is None and not download:
        _refuse(tfds, name, where)
    if builder is None:
        builder = _prepare(tfds, name, where)
    formats = {one.value for one in builder.info.available_file_formats()}
    if not formats & {"array_record", "parquet"}:  # those with random access
        raise ValueError(
            f"`name` must be prepared as array_record, got {name!r} as "
            f"{', '.join(sorted(formats)) or 'nothing'}; convert it, with TensorFlow: tfds "
            f"convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record."
        )
    return Source(builder, *_keys(tfds, builder.info, image_key, label_key))


def _on_disk(name: str, data_dir: str | None) -> Any:
    """The data set as its files describe it, or `None`. Unlike `tfds.builder`, this takes any
    version that is there and asks no server."""
    from tensorflow_datasets.core import naming, read_only_builder, registered

    try:
        if naming.parse_builder_name_kwargs(name)[0].namespace:
            raise ValueError("names with a namespace are not supported")
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except registered.DatasetNotFoundError:
        return None
    except Exception as error:  # a name, a folder or a description that TFDS cannot read
        raise ValueError(
            f"`name` must be a data set that TFDS can read, got {name!r}: {_first_line(error)}."
        ) from None


def _refuse(tfds: Any, name: str, data_dir: str | None) -> NoReturn:
    """One line on a data set that is not there: TFDS knows it, or does not."""
    from tensorflow_datasets.core import naming
    from tensorflow_datasets.core.utils import file_utils

    folders = ", ".join(map(str, file_utils.list_data_dirs(given_data_dir=data_dir)))
    known = tfds.list_builders(with_community_datasets=False)
    if naming.parse_builder_name_kwargs(name)[0].name not in known:
        raise ValueError(
            f"`name` must be a data set that is prepared in {folders} or that TFDS knows, "
            f"got {name!r}."
        ) from None
    raise ValueError(
        f"`name` must be prepared beforehand, got {name!r}, which is not in {folders}; on a "
        f"machine with network and TensorFlow: tfds build {name} --file_format=array_record "
        "(or pass download=True)."
    ) from None


def _prepare(tfds: Any, name: str, data_dir: str | None) -> Any:
    """Download and prepare, once a server has answered."""
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        _refuse(tfds, name, data_dir)
    except Exception as error:  # a configuration or version that there is not
        raise ValueError(
            f"`name` must be a data set that TFDS can make, got {name!r}: {_first_line(error)}."
        ) from None
    _await_answer(builder.url_infos or ())
    try:
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        if error.name != "tensorflow" and "tensorflow" not in str(error):
            raise
        raise ValueError(
            f"`download` must be False without TensorFlow, which preparing {name!r} needs (reading "
            "does not), got True; prepare it elsewhere and copy its folder."
        ) from None
    except Exception as error:  # the code of a data set may raise anything
        raise ValueError(
            f"`name` must be a data set that can be prepared here, got {name!r}: "
            f"{_first_line(error)}."
        ) from None
    return builder


def _await_answer(urls: Collection[str]) -> None:
    """One line unless one of the servers answers at all, through a proxy if there is one."""
    import requests

    hosts = {urllib.parse.urlsplit(url).netloc: url for url in urls if url.startswith("http")}
    answered = threading.Event()

    def ask(url: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # those of requests are OSErrors
            requests.head(url, timeout=_PATIENCE)
            answered.set()

    # Looking up a name may take longer than any timeout of a connection: threads that may stay.
    threads = [
        threading.Thread(target=ask, args=(url,), daemon=True)
        for url in list(hosts.values())[:_HOSTS]
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _PATIENCE
    while threads and not answered.wait(0.02):
        if time.monotonic() > end or not any(thread.is_alive() for thread in threads):
            if answered.is_set():
                return
            raise ValueError(
                "`download` must be False without network, got True, and no answer from "
                f"{', '.join(list(hosts)[:_HOSTS])}."
            )


def _keys(tfds: Any, info: Any, image_key: str | None, label_key: str | None) -> tuple[str, str]:
    """The features that make a task: those given, else the supervised pair, else the only ones."""
    features, kinds = info.features, tfds.features
    if not isinstance(features, kinds.FeaturesDict):
        raise ValueError(
            f"`name` must be a data set of named features, got {type(features).__name__}."
        )
    pair = info.supervised_keys
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(k in features for k in pair)):
        pair = tuple(
            only[0] if len(only) == 1 else None
            for kind in (kinds.Image, kinds.ClassLabel)
            for only in [[key for key, one in features.items() if isinstance(one, kind)]]
        )

    def key_of(name: str, given: str | None, guess: Any, good: Any, wanted: str) -> Any:
        key = guess if given is None else _validate.instance(name, given, str)
        if key not in features:
            raise ValueError(
                f"`{name}` must be one of the features {', '.join(sorted(features))}, got {key!r}."
            )
        if not good(kinds, features[key]):
            raise ValueError(
                f"`{name}` must name {wanted}, got {key!r}, of the kind "
                f"{type(features[key]).__name__}."
            )
        return key

    return (
        key_of("image_key", image_key, pair[0], _is_numeric, "an image or an array of numbers"),
        key_of("label_key", label_key, pair[1], _is_label, "a class or an integer"),
    )


def _is_numeric(kinds: Any, feature: Any) -> bool:
    if isinstance(feature, kinds.Image):
        return True
    plain = isinstance(feature, kinds.Tensor) and not isinstance(feature, kinds.ClassLabel)
    return plain and _kind(feature) in "biuf"


def _is_label(kinds: Any, feature: Any) -> bool:
    if isinstance(feature, kinds.ClassLabel):
        return True
    scalar = isinstance(feature, kinds.Tensor) and feature.shape == ()
    return scalar and _kind(feature) in "biu"


def _kind(feature: Any) -> str:
    return _validate.numpy_numbers(np.empty(0, feature.np_dtype)).dtype.kind
