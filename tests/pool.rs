//! Many buffers, one budget.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use spillbuffer::{Builder, SpillError, SpillPool, SpillReader, SpillWriter};
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

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn length(&mut self) -> usize {
        let most = [100, 5_000, 40_000, 200_000][self.roll(4) as usize];
        1 + self.roll(most) as usize
    }
}

/// Writes until it has had enough, or the other side has; ends as chance has it.
async fn write_at_random(mut writer: SpillWriter, stream: u64, mut dice: Dice) {
    let (total, mut at) = (dice.roll(1 << 20), 0);
    while at < total {
        let bytes = pattern(stream, at, dice.length());
        at += bytes.len() as u64;
        let written = match dice.roll(3) {
            0 => writer.write_bytes(bytes.into()).await.map_err(Into::into),
            _ => writer.write_all(&bytes).await,
        };
        if written.is_err() {
            return;
        }
        if dice.roll(8) == 0 {
            tokio::task::yield_now().await;
        }
    }
    match dice.roll(8) {
        0 => drop(writer),
        1 => writer.fail("as planned"),
        2 => writer.abort("as planned"),
        _ => drop(writer.finish()),
    }
}

/// Reads at any speed and in any way, checks every byte, and may give up.
async fn read_at_random(mut reader: SpillReader, stream: u64, mut dice: Dice) {
    let (mut buf, mut at, mut held) = (vec![0; 100_000], 0, Vec::new());
    let gives_up_at = if dice.roll(6) == 0 { dice.roll(1 << 20) } else { u64::MAX };
    while at < gives_up_at {
        for _ in 0..dice.roll([2, 2, 50][dice.0 as usize % 3]) {
            tokio::task::yield_now().await;
        }
        let n = if dice.roll(2) == 0 {
            match reader.next_chunk().await {
                Ok(Some(chunk)) => {
                    assert!(chunk == pattern(stream, at, chunk.len()), "stream {stream}: wrong bytes at {at}");
                    held.push(chunk);
                    held.last().map_or(0, bytes::Bytes::len)
                }
                Ok(None) => return,
                Err(error) => return expected(&error),
            }
        } else {
            let most = dice.length().min(buf.len());
            match reader.read(&mut buf[..most]).await {
                Ok(0) => return,
                Ok(n) => {
                    assert!(buf[..n] == pattern(stream, at, n), "stream {stream}: wrong bytes at {at}");
                    n
                }
                Err(error) => return expected(SpillError::from_io(&error).expect("one of ours")),
            }
        };
        at += n as u64;
        if held.len() > 4 || dice.roll(3) == 0 {
            held.clear();
        }
    }
    if dice.roll(2) == 0 {
        reader.cancel("enough");
    }
}

fn expected(error: &SpillError) {
    assert!(matches!(error, SpillError::WriterDropped | SpillError::WriterFailed { .. }), "{error}");
}

/// A hundred at a time on a pool that has too little of everything. `SOAK_SECONDS` makes it longer.
#[test]
fn a_pool_at_its_limits_under_random_streams_neither_hangs_nor_leaks() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    let (memory, disk) = (1 << 20, 4 << 20);
    let pool = SpillPool::builder().memory_limit(memory).disk_limit(disk).min_free_space(0).build().unwrap();
    let mut seed = 0;
    while std::time::Instant::now() < end {
        within(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..100 {
                seed += 1;
                let mut dice = Dice(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15) | 1);
                let builder = pool.builder().memory_limit([256 << 10, 300_000, 1 << 20][dice.roll(3) as usize]);
                let (writer, reader) = builder.build().unwrap().into_split();
                let other = Dice(dice.roll(u64::MAX) | 1);
                tasks.spawn(write_at_random(writer, seed, dice));
                tasks.spawn(read_at_random(reader, seed, other));
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
                let stats = pool.stats();
                assert!(stats.memory_held <= memory as u64 && stats.disk_held <= disk, "{stats:?}");
            }
        });
        support::eventually("everything is given back", || {
            let stats = pool.stats();
            (stats.buffers, stats.memory_held, stats.lent, stats.disk_held) == (0, 0, 0, 0)
        });
    }
    assert!(pool.stats().spilled > 0);
}

/// A hog holds most of the memory, and neither writes nor reads: it is never held, so by itself it would spill nothing.
#[test]
fn what_a_stalled_stream_holds_goes_to_disk_when_another_needs_it() {
    within(async {
        let pool = SpillPool::builder().memory_limit(1 << 20).build().unwrap();
        let (mut hog, hog_reader) = pool.builder().memory_limit(1 << 20).build().unwrap().into_split();
        // Also a block that is filled in part.
        hog.write_all(&pattern(0, 0, 700_000)).await.unwrap();
        assert_eq!(hog.stats().on_disk, 0);

        let (mut writer, reader) = pool.buffer().into_split();
        for piece in 0..20 {
            writer.write_all(&pattern(1, piece * 100_000, 100_000)).await.unwrap();
        }
        writer.finish().unwrap();
        support::eventually("the hog's memory is given up", || {
            let stats = hog.stats();
            stats.memory_held == 0 && stats.on_disk == 700_000
        });
        assert_eq!(drain(1, reader).await, 2_000_000);
        hog.finish().unwrap();
        assert_eq!(drain(0, hog_reader).await, 700_000);
    });
}

/// At the disk limit writers wait; a reader that frees space lets on the one that has waited longest, and no other goes before.
#[test]
fn at_the_disk_limit_a_drain_lets_the_writers_on_and_fail_fails_alone() {
    within(async {
        let pool = SpillPool::builder().memory_limit(1 << 20).disk_limit(2 << 20).min_free_space(0).build().unwrap();
        let mut readers = Vec::new();
        let mut writers = tokio::task::JoinSet::new();
        for stream in 0..4u64 {
            let (mut writer, reader) = pool.buffer().into_split();
            readers.push(reader);
            writers.spawn(async move {
                for piece in 0..10 {
                    writer.write_all(&pattern(stream, piece * 100_000, 100_000)).await.unwrap();
                }
                writer.finish().unwrap();
            });
        }
        support::eventually("the disk is full", || pool.stats().disk_held > (2 << 20) - 3 * (64 << 10));
        let failing = pool.builder().on_full(spillbuffer::OnFull::Fail).build().unwrap();
        let (mut writer, unread) = failing.into_split();
        let error = writer.write_all(&vec![1; 3 << 20]).await.unwrap_err();
        assert!(matches!(SpillError::from_io(&error), Some(SpillError::DiskLimit { .. })), "{error}");
        drop((writer, unread));
        for (stream, reader) in readers.into_iter().enumerate() {
            assert_eq!(drain(stream as u64, reader).await, 1_000_000);
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        assert!(pool.stats().peak_disk_held <= 2 << 20);
    });
}

/// What is kept for reuse is bounded by `retain` as soon as the backlog is gone, also while others use the disk; and after a
/// second of quiet nothing is left.
#[test]
fn c06_a_drained_pool_keeps_what_retain_says_and_in_the_end_no_file() {
    for retain in [2 << 20, 8 << 20] {
        let scratch = support::Scratch::new();
        let pool = SpillPool::builder().memory_limit(1 << 20).retain(retain).temp_dir(scratch.path()).build().unwrap();
        let stream = async |number: u64, len: usize| {
            let (mut writer, reader) = pool.buffer().into_split();
            writer.write_all(&pattern(number, 0, len)).await.unwrap();
            writer.finish().unwrap();
            let allocated = scratch.allocated();
            assert_eq!(drain(number, reader).await, len as u64);
            allocated
        };
        // Less than what is worth a step of its own.
        let len = retain as usize + (4 << 20);
        assert!(within(stream(0, len)) > retain + (2 << 20));
        // With trailers, a page for each 128 slots of 64 KiB, and the file system's own map.
        support::eventually("no more is kept than was said", || {
            within(stream(1, 2 << 20));
            scratch.allocated() <= retain + (64 << 10) && pool.stats().file_bytes <= retain + (64 << 10)
        });
        support::eventually("the file is closed", || scratch.open_files().is_empty());
        assert_eq!(pool.stats().file_bytes, 0);
    }
}

/// Whoever wants no bound says so with the largest number, and calculating with that once overflowed.
#[test]
fn a_pool_whose_options_are_as_large_as_can_be_works() {
    let scratch = support::Scratch::new();
    let builder = SpillPool::builder().memory_limit(usize::MAX).disk_limit(u64::MAX).retain(u64::MAX);
    let pool = builder.temp_dir(scratch.path()).build().unwrap();
    let stream = async |number: u64| {
        let (mut writer, reader) = pool.builder().memory_limit(256 << 10).build().unwrap().into_split();
        writer.write_all(&pattern(number, 0, 6 << 20)).await.unwrap();
        assert!(writer.stats().on_disk > 0);
        writer.finish().unwrap();
        assert_eq!(drain(number, reader).await, 6 << 20);
    };
    within(stream(0));
    within(stream(1));
    support::eventually("the file is closed", || scratch.open_files().is_empty());
    assert_eq!((pool.stats().memory_held, pool.stats().file_bytes), (0, 0));

    // Where streams wait for each other's memory, upkeep comes before there is anything to give back.
    let builder = SpillPool::builder().memory_limit(512 << 10).retain(u64::MAX);
    let pool = builder.temp_dir(scratch.path()).build().unwrap();
    within(async {
        let mut readers = Vec::new();
        for number in 0..16 {
            let (mut writer, reader) = pool.buffer().into_split();
            writer.write_all(&pattern(number, 0, 1 << 20)).await.unwrap();
            readers.push((number, writer, reader));
        }
        for (number, writer, reader) in readers {
            writer.finish().unwrap();
            assert_eq!(drain(number, reader).await, 1 << 20);
        }
    });
    support::eventually("the file is closed", || scratch.open_files().is_empty());
}

/// Descriptors do not grow with the streams.
#[test]
fn c12_a_thousand_streams_need_no_more_descriptors_than_one() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    support::in_child(
        "c12_a_thousand_streams_need_no_more_descriptors_than_one",
        |_| {},
        || {
            setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
            within(async {
                let pool = SpillPool::builder().memory_limit(4 << 20).build().unwrap();
                let mut streams = Vec::new();
                for stream in 0..1000u64 {
                    let (mut writer, reader) = pool.buffer().into_split();
                    // All are stalled at once: most of this must be on disk.
                    writer.write_all(&pattern(stream, 0, 20_000)).await.unwrap();
                    streams.push((stream, writer, reader));
                }
                assert!(pool.stats().spilled > 10 << 20, "{:?}", pool.stats());
                for (stream, writer, reader) in streams {
                    writer.finish().unwrap();
                    assert_eq!(drain(stream, reader).await, 20_000);
                }
            });
        },
    );
}

/// It said that the stream's own limits were used up, which they were not.
#[test]
fn c06_a_full_pool_says_whose_limits_are_used_up() {
    let scratch = support::Scratch::new();
    let pool = SpillPool::builder().memory_limit(2 << 20).disk_limit(4 << 20).temp_dir(scratch.path());
    let pool = pool.on_full(spillbuffer::OnFull::Fail).build().unwrap();
    let fill = |memory: usize, disk: Option<u64>| {
        let builder = disk.into_iter().fold(pool.builder().memory_limit(memory), Builder::disk_limit);
        let (mut writer, reader) = builder.build().unwrap().into_split();
        let (at, error) = support::fill_up_until_told(&mut writer, 0);
        assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
        (reader, error.to_string(), at)
    };
    let (own, pools) = ("memory_limit of 524288 bytes", "the pool's memory_limit of 2097152 bytes");
    let (_own, text, at) = fill(512 << 10, Some(1 << 20));
    assert_eq!(text, format!("no room at offset {at}: {own} is used up and so is disk_limit of 1048576 bytes"));
    let (_no_disk, text, at) = fill(512 << 10, Some(0));
    assert_eq!(text, format!("no room at offset {at}: {own} is used up and disk_limit is 0"));
    let (_full, text, at) = fill(512 << 10, None);
    let disk = "so is the pool's disk_limit of 4194304 bytes";
    assert_eq!(text, format!("no room at offset {at}: {own} is used up and {disk}"));
    let (_more, text, at) = fill(2 << 20, Some(2 << 20));
    assert_eq!(text, format!("no room at offset {at}: {pools} is used up and {disk}"));
}
