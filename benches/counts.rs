//! How many instructions the small operations take, counted by callgrind; `benches/counts.sh` runs this.
//!
//! Unlike a time, a count is the same on a busy machine, so that a change of a few in a hundred can be told. It does
//! not see what waits for a cache, a lock or the kernel: `small` has the times of the same operations. Only the thread
//! that does them is counted.

#![allow(
    missing_docs,
    unused_qualifications,
    reason = "what the macros make is undocumented, by longer paths than needed"
)]

mod operations;

use std::hint::black_box;

use bytes::Bytes;
use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use operations::{LONG, ROW, SHORT, STREAM, buffer};
use spillbuffer::{SpillReader, SpillWriter};

/// Each operation is done this often: a multiple of the short writes that fill a block, so that whole lives of blocks
/// are counted.
const TIMES: usize = 1024;

// Each setup ends with one round, so that memory is warm; what a benchmark returns is dropped uncounted.

struct Writes {
    writer: SpillWriter,
    reader: SpillReader,
    piece: Vec<u8>,
    into: Vec<u8>,
}

impl Writes {
    fn of(len: usize) -> Self {
        let (writer, reader) = buffer();
        let mut this = Self { writer, reader, piece: vec![7; len], into: vec![0; len] };
        this.round();
        this
    }

    fn round(&mut self) {
        operations::write_and_read(&mut self.writer, &mut self.reader, &self.piece, &mut self.into);
    }
}

#[library_benchmark(setup = Writes::of)]
#[bench::of_512_bytes(SHORT)]
#[bench::of_64_kib(LONG)]
fn write_and_read(mut writes: Writes) -> Writes {
    for _ in 0..TIMES {
        writes.round();
    }
    writes
}

#[library_benchmark(setup = Writes::of)]
#[bench::of_512_bytes(SHORT)]
fn row(mut writes: Writes) -> Writes {
    for _ in 0..TIMES / ROW {
        operations::row(&mut writes.writer, &mut writes.reader, &writes.piece, &mut writes.into);
    }
    writes
}

struct Chunks {
    writer: SpillWriter,
    reader: SpillReader,
    item: Bytes,
}

impl Chunks {
    fn of(len: usize) -> Self {
        let (writer, reader) = buffer();
        let mut this = Self { writer, reader, item: Bytes::from(vec![7; len]) };
        this.round();
        this
    }

    fn round(&mut self) {
        operations::write_and_take(&mut self.writer, &mut self.reader, &self.item);
    }
}

#[library_benchmark(setup = Chunks::of)]
#[bench::of_64_kib(LONG)]
fn write_and_take(mut chunks: Chunks) -> Chunks {
    for _ in 0..TIMES {
        chunks.round();
    }
    chunks
}

fn one_buffer() {
    drop(black_box(buffer()));
}

#[library_benchmark(setup = one_buffer)]
fn create_and_drop((): ()) {
    for _ in 0..TIMES {
        one_buffer();
    }
}

struct Streams {
    bytes: Vec<u8>,
    into: Vec<u8>,
}

impl Streams {
    fn of(len: usize) -> Self {
        let mut this = Self { bytes: vec![7; len], into: Vec::with_capacity(2 * len) };
        this.round();
        this
    }

    fn round(&mut self) {
        operations::stream(buffer(), &self.bytes, &mut self.into);
    }
}

#[library_benchmark(setup = Streams::of)]
#[bench::of_4_kib(STREAM)]
fn stream(mut streams: Streams) -> Streams {
    for _ in 0..TIMES {
        streams.round();
    }
    streams
}

library_benchmark_group!(name = small; benchmarks = write_and_read, row, write_and_take, create_and_drop, stream);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["cache-sim=no"]))
        // Callgrind counts `rep movsb` once a byte: of 134,700 for a write and read of 64 KiB, 131,072 would be the two
        // copies, and a buffer that works twice as hard for them would hardly show. Below this many bytes glibc copies
        // with loads and stores instead, 12,350 of 16,000.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824");
    library_benchmark_groups = small
);
