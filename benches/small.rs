//! What the small operations cost, beside tokio's duplex where that has the same.
//!
//! `cargo bench --bench small`; a word behind `--` picks those whose name contains it. Times drift with the machine, so
//! look at the two of a group against each other. `counts` counts the instructions of the same operations.

mod operations;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use operations::{LONG, SHORT, STREAM, buffer, stream, write_and_read, write_and_take};
use tokio::io::duplex;

/// As much as a buffer's window by default.
const WINDOW: usize = 1 << 20;

criterion_group!(benches, short_writes, long_writes, chunks, empty, streams);
criterion_main!(benches);

fn short_writes(c: &mut Criterion) {
    writes(c, "512 B write and read", SHORT);
}

fn long_writes(c: &mut Criterion) {
    writes(c, "64 KiB write and read", LONG);
}

fn writes(c: &mut Criterion, name: &str, len: usize) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(len as u64));
    let piece = vec![7; len];
    let mut into = vec![0; len];
    let (mut writer, mut reader) = buffer();
    group.bench_function("spillbuffer", |b| b.iter(|| write_and_read(&mut writer, &mut reader, &piece, &mut into)));
    let (mut writer, mut reader) = duplex(WINDOW);
    group.bench_function("duplex", |b| b.iter(|| write_and_read(&mut writer, &mut reader, &piece, &mut into)));
    group.finish();
}

/// Duplex has no chunks.
fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("64 KiB write_bytes and next_chunk");
    group.throughput(Throughput::Bytes(LONG as u64));
    let item = Bytes::from(vec![7; LONG]);
    let (mut writer, mut reader) = buffer();
    group.bench_function("spillbuffer", |b| b.iter(|| write_and_take(&mut writer, &mut reader, &item)));
    group.finish();
}

fn empty(c: &mut Criterion) {
    let mut group = c.benchmark_group("create and drop");
    group.bench_function("spillbuffer", |b| b.iter(|| drop(black_box(buffer()))));
    group.bench_function("duplex", |b| b.iter(|| drop(black_box(duplex(WINDOW)))));
    group.finish();
}

fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("4 KiB stream");
    group.throughput(Throughput::Bytes(STREAM as u64));
    let bytes = vec![7; STREAM];
    let mut into = Vec::with_capacity(2 * STREAM);
    group.bench_function("spillbuffer", |b| b.iter(|| stream(buffer(), &bytes, &mut into)));
    group.bench_function("duplex", |b| b.iter(|| stream(duplex(WINDOW), &bytes, &mut into)));
    group.finish();
}
