"""``pack``: split after split, from the first shard that is not committed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from logitstore.cards import write_atomically
from logitstore.checksums import canonical_json, seal
from logitstore.errors import DataError, InputError, MismatchError, SplitError
from logitstore.images.packed import FORMAT_VERSION, MANIFEST, MARK, is_packed, read_manifest
from logitstore.launch import usable_cores
from logitstore.loader.ordered import Workers, in_order
from logitstore.locks import locked
from logitstore.pack.config import PackConfig, PackResult, SplitResult
from logitstore.pack.finish import finish
from logitstore.pack.sources import SetSource, StreamSource, extended, open_source
from logitstore.pack.writer import UNFINISHED, SplitWriter, remove_parts, remove_unfinished
from logitstore.progress import Progress, ProgressFactory, start

_AHEAD = 8  # images under way, for each thread
_LOCK = ".lock"


def pack(config: PackConfig, progress: ProgressFactory | None = None) -> PackResult:
    """Pack the images of a data set. Called again after it was stopped, it goes on with the first missing shard.

    Args:
        config: what to pack, and how.
        progress: how to show progress; None is silent.

    Returns:
        What there is now, and what this call made of it.

    Raises:
        InputError: something the user named cannot be used.
        DataError: there is no such data set, it holds bad images, or a committed shard is damaged.
        DecodeError: an image does not decode.
        MismatchError: the folder holds images that were packed from something else, or in another way.
    """
    out = Path(config.out).expanduser()
    _require_own(out)
    # Opened before anything is written.
    sources = {config.wanted_split: open_source(config, config.source_split)}
    notes: tuple[str, ...] = ()
    if config.split is None:
        try:
            sources["val"] = open_source(config, "val")
        except SplitError:
            notes = (
                f"The train split alone is packed, for {config.data} has no val split: another one, of these or other "
                "data, is packed beside it with --split val=ITS-NAME (train where data have no splits).",
            )
        except DataError as error:
            notes = (f"The train split alone is packed: {error}",)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / _LOCK, f"Another process is packing into {out}: wait until it ends, or name another folder."):
        remove_unfinished(out)
        if not is_packed(out):
            mark = canonical_json(seal({"format": "logitstore pack", "format_version": FORMAT_VERSION}))
            write_atomically(out / MARK, lambda temporary: temporary.write_bytes(mark))
        packings = [_Packing(config, source, out / split) for split, source in sources.items()]
        results = [packing.run(progress) for packing in packings]
    images = sum(result.images for result in results)
    seconds = sum(packing.seconds for packing in packings)
    return PackResult(
        out=str(out),
        images=images,
        bytes_per_image=sum(result.bytes for result in results) / images,
        images_per_second=sum(result.made for result in results) / seconds if seconds else 0.0,
        splits=tuple(results),
        notes=notes,
    )


def _require_own(out: Path) -> None:
    """Refuse a folder in which something else lies."""
    if not out.is_dir() or is_packed(out):
        return
    if any(entry.name != _LOCK and not entry.match(UNFINISHED) for entry in out.iterdir()):
        raise InputError(f"{out} holds something other than packed images: name a folder that is empty or not there.")


class _Packing:
    """The packing of one split.

    Args:
        config: what is asked for.
        source: what is packed.
        folder: the split's.
    """

    def __init__(self, config: PackConfig, source: SetSource | StreamSource, folder: Path) -> None:
        self.seconds = 0.0
        self._config, self._source, self._folder = config, source, folder
        self._identity = {"source": source.identity, "short_side": config.short_side, "quality": config.quality}

    def run(self, progress: ProgressFactory | None) -> SplitResult:
        """Pack what is missing."""
        if (self._folder / MANIFEST).exists():
            manifest = read_manifest(self._folder)
            self._require_same(manifest)
            remove_parts(self._folder)  # of a run that was killed just before it did
            return self._result(manifest, made=0)
        writer = SplitWriter(self._folder, self._identity, self._config.shard_mib << 20)
        there = writer.images
        if writer.taken == 0:
            with start(progress, self._source.total, "img", f"checking {self._folder.name}") as bar:
                self._source.check(lambda done, _: bar.advance(done - bar.done))
        with start(progress, self._source.total, "img", f"packing {self._folder.name}", done=writer.taken) as bar:
            try:
                self._write(writer, bar)
                writer.commit()
            finally:
                writer.close()
                self.seconds = bar.seconds
        if not writer.images:
            raise DataError(f"{self._config.data} ({self._folder.name}) holds no image that decodes.")
        description = {
            **self._source.description(writer.digest),
            "split": self._folder.name,
            "identity": self._identity,
            "left_out": writer.left_out,
        }
        manifest = finish(self._folder, writer.parts, description, named=self._source.named)
        return self._result(manifest, made=writer.images - there)

    def _require_same(self, manifest: dict[str, Any]) -> None:
        if manifest["identity"] != self._identity:
            raise MismatchError(
                f"What the images in {self._folder} are packed from, or how,",
                stored=canonical_json(manifest["identity"]).decode(),
                present=canonical_json(self._identity).decode(),
                remedy="Pack into another folder.",
            )

    def _write(self, writer: SplitWriter, bar: Progress) -> None:
        workers = self._config.workers or usable_cores()
        done, number, digest = writer.taken, 0, ""
        streamed = isinstance(self._source, StreamSource)
        with Workers(workers) as threads:
            jobs = self._source.jobs(done)
            with closing(in_order(jobs, workers=threads, ahead=_AHEAD * workers)) as made:
                for number, item in enumerate(made, start=1 if streamed else done + 1):
                    if streamed:
                        digest = extended(digest, item.content)
                    if number > done:
                        writer.add(item.image, digest=digest)
                        bar.advance(1, **{"kB/img": f"{writer.bytes_written / max(1, writer.images) / 1000:.1f}"})
                    elif number == done and digest != writer.digest:
                        raise self._other_stream(done)
        if streamed and number < done:
            raise self._other_stream(done)

    def _other_stream(self, done: int) -> DataError:
        return DataError(
            f"{self._config.data} ({self._folder.name}) does not begin with the {done} images that are packed already: "
            "streams must give the same images in the same order each time; pack into another folder."
        )

    def _result(self, manifest: dict[str, Any], *, made: int) -> SplitResult:
        return SplitResult(
            split=self._folder.name,
            images=manifest["num_samples"],
            left_out=manifest["left_out"],
            shards=len(manifest["shards"]),
            bytes=sum(shard["bytes"] for shard in manifest["shards"]),
            made=made,
            fingerprint=manifest["fingerprint"],
        )
