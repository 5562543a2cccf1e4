//! How fast bytes pass, against what a user would take instead: tokio's in-memory pipe where the reader
//! keeps up, and a bare loop of `pwrite` and `pread` where nobody reads until all is written.
//!
//! `cargo bench` prints medians of interleaved rounds; the ratios are what to look at, for the
//! machine's own speed drifts. `ROUNDS` and `MIB` in the environment change the amount.

// Speeds are printed, not compared to the last digit.
#![allow(clippy::cast_precision_loss)]

use std::{
    env, fs,
    hint::black_box,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use spillbuffer::SpillBuffer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

type Work = Box<dyn Fn(u64) -> Duration>;

fn main() {
    let rounds = number("ROUNDS", 7);
    let bytes = number("MIB", 1024) << 20;
    let works: Vec<(&str, u64, Work)> = vec![
        ("keeping up, 64 KiB, 1 MiB window", bytes, Box::new(|n| keep_up(n, 1 << 20, 64 << 10))),
        ("  tokio duplex", bytes, Box::new(|n| duplex(n, 1 << 20, 64 << 10))),
        ("keeping up, 64 KiB, 256 KiB window", bytes, Box::new(|n| keep_up(n, 256 << 10, 64 << 10))),
        ("  tokio duplex", bytes, Box::new(|n| duplex(n, 256 << 10, 64 << 10))),
        ("keeping up, 512 B, 1 MiB window", bytes / 8, Box::new(|n| keep_up(n, 1 << 20, 512))),
        ("  tokio duplex", bytes / 8, Box::new(|n| duplex(n, 1 << 20, 512))),
        ("keeping up, Bytes, 1 MiB window", bytes, Box::new(|n| keep_up_bytes(n, 1 << 20))),
        ("nobody reads, then all, 1 MiB window", bytes, Box::new(|n| spill(n, 1 << 20))),
        ("  raw pwrite + pread, 1 MiB calls", bytes, Box::new(raw)),
        ("nobody reads, then all, 256 KiB window", bytes, Box::new(|n| spill(n, 256 << 10))),
        ("  raw pwrite + pread, 1 MiB calls", bytes, Box::new(raw)),
    ];
    let mut times = vec![Vec::new(); works.len()];
    for _ in 0..rounds {
        for ((_, bytes, work), times) in works.iter().zip(&mut times) {
            times.push(work(*bytes));
        }
    }
    println!("{:42} {:>10} {:>10} {:>8}", format!("{rounds} rounds, medians"), "GB/s", "spread", "ratio");
    let mut ours = 0.0;
    for ((name, bytes, _), times) in works.iter().zip(&mut times) {
        times.sort();
        let speed = |time: Duration| *bytes as f64 / time.as_secs_f64() / 1e9;
        let median = speed(times[times.len() / 2]);
        let spread = format!("{:.1}-{:.1}", speed(*times.last().unwrap()), speed(times[0]));
        let ratio = if name.starts_with("  ") { format!("{:.2}", ours / median) } else { String::new() };
        ours = if name.starts_with("  ") { ours } else { median };
        println!("{name:42} {median:>10.2} {spread:>10} {ratio:>8}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn keep_up(bytes: u64, window: usize, piece: usize) -> Duration {
    let (writer, reader) = SpillBuffer::builder().memory_limit(window).build().unwrap().into_split();
    let control = reader.control();
    let time = pump(writer, reader, bytes, piece);
    assert_eq!(control.stats().spilled, 0, "a reader that keeps up");
    time
}

fn duplex(bytes: u64, window: usize, piece: usize) -> Duration {
    let (writer, reader) = tokio::io::duplex(window);
    pump(writer, reader, bytes, piece)
}

fn pump(
    mut writer: impl AsyncWrite + Unpin + Send + 'static,
    mut reader: impl AsyncRead + Unpin + Send + 'static,
    bytes: u64,
    piece: usize,
) -> Duration {
    runtime().block_on(async move {
        let start = Instant::now();
        let producer = tokio::spawn(async move {
            let piece = vec![7; piece];
            for _ in 0..bytes / piece.len() as u64 {
                writer.write_all(&piece).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let consumer = tokio::spawn(async move {
            let (mut buf, mut read) = (vec![0; 64 << 10], 0);
            loop {
                match reader.read(&mut buf).await.unwrap() {
                    0 => break read,
                    n => read += n as u64,
                }
                black_box(&buf);
            }
        });
        producer.await.unwrap();
        assert_eq!(consumer.await.unwrap(), bytes);
        start.elapsed()
    })
}

fn keep_up_bytes(bytes: u64, window: usize) -> Duration {
    let (mut writer, mut reader) = SpillBuffer::builder().memory_limit(window).build().unwrap().into_split();
    runtime().block_on(async move {
        let start = Instant::now();
        let producer = tokio::spawn(async move {
            let piece = bytes::Bytes::from(vec![7; 64 << 10]);
            for _ in 0..bytes / piece.len() as u64 {
                writer.write_bytes(piece.clone()).await.unwrap();
            }
            writer.finish().unwrap();
        });
        let consumer = tokio::spawn(async move {
            let mut read = 0;
            while let Some(chunk) = reader.next_chunk().await.unwrap() {
                read += black_box(chunk).len() as u64;
            }
            read
        });
        producer.await.unwrap();
        assert_eq!(consumer.await.unwrap(), bytes);
        start.elapsed()
    })
}

fn spill(bytes: u64, window: usize) -> Duration {
    let (mut writer, mut reader) = SpillBuffer::builder().memory_limit(window).build().unwrap().into_split();
    runtime().block_on(async move {
        let piece = vec![7; 64 << 10];
        let mut buf = vec![0; 64 << 10];
        let start = Instant::now();
        for _ in 0..bytes / piece.len() as u64 {
            writer.write_all(&piece).await.unwrap();
        }
        writer.finish().unwrap();
        let mut read = 0;
        loop {
            match reader.read(&mut buf).await.unwrap() {
                0 => break,
                n => read += n as u64,
            }
            black_box(&buf);
        }
        assert_eq!(read, bytes);
        drop(reader);
        start.elapsed()
    })
}

fn raw(bytes: u64) -> Duration {
    let file: fs::File = tempfile::tempfile_in(env::temp_dir()).unwrap();
    let mut buf = vec![7; 1 << 20];
    let start = Instant::now();
    for at in (0..bytes).step_by(buf.len()) {
        file.write_all_at(&buf, at).unwrap();
    }
    for at in (0..bytes).step_by(buf.len()) {
        file.read_exact_at(&mut buf, at).unwrap();
        black_box(&buf);
    }
    drop(file);
    start.elapsed()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}
