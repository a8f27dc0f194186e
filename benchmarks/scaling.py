"""Do cost per record, memory and opening time stay flat from ten thousand to ten million samples?

    python -m benchmarks.scaling [--max-samples 10000000] [--quick] [--save]

For each N a store of one epoch of made records (K=10) is written and scanned in processes of their own. What was
measured at the largest N is carried on to ImageNet-21k, 90 epochs. Then one and two processes dump the same store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

import numpy as np

from benchmarks.common import Row, arguments, finish, hardware, print_table
from benchmarks.measures.memory import MIB, in_fresh_process, private_bytes
from benchmarks.measures.scan import CLASSES, TOPK, made_records
from benchmarks.stores import bench_manifest, write_shard
from logitstore.cuts import Cut
from logitstore.store import Store, choose_shard_size, create_store, open_store

IMAGENET_21K, EPOCHS = 14_197_122, 90
SMALLEST = 10_000
BATCH = 1024
MADE = 1 << 16
"""Different records; a longer shard repeats them, which its chunks, compressed one by one, cannot profit from."""
FLAT, DUMP_TARGET = 1.25, 1.8


def write(path: str, num_samples: int) -> Row:
    """Write one epoch; the making of the records does not count."""
    manifest = bench_manifest(
        num_samples=num_samples,
        num_epochs=1,
        num_classes=CLASSES,
        cut=Cut(topk=TOPK, floor=1e-3),
        shard_size=choose_shard_size(num_samples, TOPK, "q8", False, 64, num_classes=CLASSES),
    )
    store = create_store(Path(path), manifest)
    made = made_records(min(MADE, manifest.shard_size), 0)
    order, seconds, cpu = store.order(0), 0.0, 0.0
    for shard in range(store.num_shards):
        start, stop = store.shard_range(shard)
        repeats = -(-(stop - start) // len(made["tail"]))
        records = {name: np.concatenate([array] * repeats)[: stop - start] for name, array in made.items()}
        began, began_cpu = time.perf_counter(), time.process_time()
        write_shard(store, 0, shard, order.samples(np.arange(start, stop)), records)
        seconds += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
    return {
        "write_us": 1e6 * max(seconds, cpu) / num_samples,
        "bytes_per_record": store.info()["bytes_per_record"],
        "shards": store.num_shards,
    }


def scan(path: str) -> Row:
    """Open and read everything once, in batches; a first read pays for what is compiled or loaded once."""
    warm = open_store(Path(path))
    warm.read(0, 0, 1)
    before = private_bytes()
    began = time.perf_counter()
    store = open_store(Path(path))
    assert store.complete
    opened = time.perf_counter() - began
    grown = 0
    began, began_cpu = time.perf_counter(), time.process_time()
    for number, start in enumerate(range(0, store.num_samples, BATCH)):
        store.read(0, start, min(start + BATCH, store.num_samples))
        if number % 512 == 0:
            grown = max(grown, private_bytes() - before)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "open_ms": 1e3 * opened,
        "copy_us": 1e6 * copy_seconds(store) / store.num_samples,
        "scan_us": 1e6 * max(seconds, cpu) / store.num_samples,
        "private_mib": max(grown, private_bytes() - before) / MIB,
    }


def copy_seconds(store: Store) -> float:
    """The ceiling of a scan: writing what it gives into new memory, batch by batch, and nothing else."""
    records = store.read(0, 0, BATCH)
    arrays = [array for array in vars(records).values() if isinstance(array, np.ndarray)]
    began = time.perf_counter()
    for _ in range(0, store.num_samples, BATCH):
        copies = [array.copy() for array in arrays]
    assert len(copies) == len(arrays)
    return time.perf_counter() - began


def measure_sizes(sizes: list[int], folder: Path) -> list[Row]:
    """A row for each N."""
    rows = []
    for num_samples in sizes:
        path = str(folder / f"store-{num_samples}")
        row = {"samples": num_samples, **in_fresh_process(write, path, num_samples), **in_fresh_process(scan, path)}
        print(f"N = {num_samples:,}: done", flush=True)
        rows.append(row)
    return rows


def dump_rate(path: Path, *, processes: int, images: int, epochs: int) -> float:
    """Images per second of so many processes that fill one store together, one thread of torch each."""
    options = {
        "--teacher": "benchmarks.measures.fixed:swin_t",
        "--data": "digits",
        "--subset": images,
        "--epochs": epochs,
        "--shard-size": 64,
        "--store": path,
        "--workers": 1,
        "--device": "cpu",
    }
    words = [str(word) for option in options.items() for word in option]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "logitstore", "dump", *words, "--json"],
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    done, seconds = 0, 0.0
    for process in running:
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"A dumping process failed:\n{err[-2000:]}")
        result = json.loads(out)
        done += result["records"]
        if result["records"]:  # none where the other one was through before this one began
            seconds = max(seconds, result["records"] / result["images_per_second"])
    return done / seconds


def measure_processes(folder: Path, *, images: int, epochs: int) -> tuple[float, float]:
    """Images per second of one dumping process and of two; one before them pays for what is compiled once."""
    dump_rate(folder / "warm", processes=1, images=64, epochs=1)
    one, two = (dump_rate(folder / f"by-{count}", processes=count, images=images, epochs=epochs) for count in (1, 2))
    return one, two


def extrapolated(row: Row) -> Row:
    """What ImageNet-21k takes for 90 epochs at the cost of one row."""
    records = IMAGENET_21K * EPOCHS
    return {
        "imagenet21k_gb": records * row["bytes_per_record"] / 1e9,
        "imagenet21k_write_core_hours": records * row["write_us"] / 3.6e9,
        "imagenet21k_scan_core_hours": records * row["scan_us"] / 3.6e9,
    }


def main() -> None:
    """Measure, compare with a flat line, extrapolate, print the JSON line."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--max-samples", type=int, default=10_000_000, help="largest N")
    args = parser.parse_args()
    largest = 2 * SMALLEST if args.quick else args.max_samples
    sizes = [size for size in (10**power for power in range(4, 9)) if size < largest] + [largest]
    print(hardware())
    print(
        f"Made records, K={TOPK} of {CLASSES:,}, q8, one epoch; times per record and core. A flat line is the ceiling."
    )
    with tempfile.TemporaryDirectory(prefix="logitstore-scaling-") as name:
        rows = measure_sizes(sizes, Path(name))
        print_table(rows, list(rows[0]))
        images, epochs = (128, 1) if args.quick else (1408, 4)
        one, two = measure_processes(Path(name), images=images, epochs=epochs)
    last = rows[-1]
    summary = {
        "largest": last["samples"],
        "scan_growth": last["scan_us"] / rows[0]["scan_us"],
        "write_growth": last["write_us"] / rows[0]["write_us"],
        "open_ms": last["open_ms"],
        "private_mib": last["private_mib"],
        "dump_two_processes_ratio": two / one,
        "dump_one_process_images_per_s": one,
        **extrapolated(last),
    }
    growth = summary["scan_growth"]
    print(f"\nscan cost per record, the largest N over {SMALLEST:,}: {growth:.2f} (flat or falling: at most {FLAT})")
    print(f"scan at the largest N over copying what it gives: {last['scan_us'] / last['copy_us']:.1f}")
    print(
        f"two dumping processes over one: {two / one:.2f}, target {DUMP_TARGET} where cores allow; "
        f"there are {hardware()['cores']}"
    )
    print(
        f"ImageNet-21k, {EPOCHS} epochs, K={TOPK}: {summary['imagenet21k_gb']:,.0f} GB, "
        f"{summary['imagenet21k_write_core_hours']:.2f} core-hours to write, "
        f"{summary['imagenet21k_scan_core_hours']:.2f} to scan"
    )
    finish("scaling", summary, save=args.save, details={"rows": rows})


if __name__ == "__main__":
    main()
