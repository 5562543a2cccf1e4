//! Many buffers, one budget.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use spillbuffer::{SpillError, SpillPool, SpillReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn pattern(stream: u64, offset: u64, len: usize) -> Vec<u8> {
    let word = |i: u64| (i.wrapping_add(stream << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (offset..offset + len as u64).map(|at| word(at / 8)[(at % 8) as usize]).collect()
}

async fn drain(stream: u64, mut reader: SpillReader) -> u64 {
    let (mut buf, mut at) = (vec![0; 50_000], 0);
    loop {
        let n = reader.read(&mut buf).await.unwrap();
        if n == 0 {
            return at;
        }
        assert!(buf[..n] == pattern(stream, at, n), "stream {stream}: wrong bytes at {at}");
        at += n as u64;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn within<T>(run: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(Duration::from_secs(100), run).await.expect("it hangs") })
}

/// Many streams that nobody reads, in much less memory than one block for each; then all are drained.
#[test]
fn stalled_streams_stay_within_the_budget_and_lose_nothing() {
    within(async {
        let pool = SpillPool::builder().memory_limit(1 << 20).build().unwrap();
        let mut readers = Vec::new();
        let mut writers = Vec::new();
        for stream in 0..200u64 {
            let (mut writer, reader) = pool.buffer().into_split();
            readers.push((stream, reader));
            writers.push(tokio::spawn(async move {
                for piece in 0..10 {
                    writer.write_all(&pattern(stream, piece * 30_000, 30_000)).await.unwrap();
                }
                writer.finish().unwrap();
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(pool.stats().peak_memory_held <= 1 << 20);
        assert_eq!(pool.stats().written, 200 * 300_000);
        let drains: Vec<_> = readers.into_iter().map(|(stream, reader)| tokio::spawn(drain(stream, reader))).collect();
        for drain in drains {
            assert_eq!(drain.await.unwrap(), 300_000);
        }
        // A write that was overtaken by its reader may still be under way.
        support::eventually("everything is given back", || {
            let stats = pool.stats();
            (stats.memory_held, stats.disk_held, stats.lent) == (0, 0, 0)
        });
        let stats = pool.stats();
        assert!(stats.peak_memory_held <= 1 << 20);
        assert_eq!((stats.written, stats.read), (200 * 300_000, 200 * 300_000));
    });
}

#[test]
fn a_pools_bad_options_are_refused_and_named() {
    let text = |built: Result<_, SpillError>| built.map(drop).unwrap_err().to_string();
    assert!(text(SpillPool::builder().memory_limit(100_000).build()).contains("memory_limit of 100000"));
    assert!(text(SpillPool::builder().disk_limit(5).build()).contains("disk_limit of 5"));
    let pool = SpillPool::builder().memory_limit(1 << 20).disk_limit(1 << 20).build().unwrap();
    let text = |built: Result<_, SpillError>| built.map(drop).unwrap_err().to_string();
    assert!(text(pool.builder().memory_limit(2 << 20).build()).contains("memory_limit of 2097152"));
    assert!(text(pool.builder().disk_limit(2 << 20).build()).contains("disk_limit of 2097152"));
    assert!(text(pool.builder().temp_dir("/tmp").build()).contains("temp_dir"));
    assert!(text(pool.builder().allow_memory_backed_dir(true).build()).contains("allow_memory_backed_dir"));
    pool.builder().memory_limit(256 << 10).disk_limit(512 << 10).build().unwrap();
}
